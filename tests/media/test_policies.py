# SPDX-License-Identifier: Apache-2.0
"""Every problem with every action: what is left out, what stands for what a file lacks."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdisco_jax.inputs.sources import open_source
from mmdisco_jax.media.entries import Entry
from mmdisco_jax.media.inspection import PROBLEMS, Inspection
from mmdisco_jax.media.pieces import Piece
from mmdisco_jax.media.policies import ACTIONS, Policies, PolicyError, mark_duplicates
from mmdisco_jax.media.preflight import after_cutting
from mmdisco_jax.media.prepare import prepare
from tests.support.clock_media import write_clock
from tests.support.media_seeds import write_seed, write_sound

CLIP = {"clip_seconds": 0.5, "fps": 10, "height": 16, "width": 16, "sample_rate_hz": 16_000}
REMEDIES = {name: actions[-1] for name, actions in ACTIONS.items()}


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    """One file for each problem, and a good one that comes first and last in the order."""
    folder = tmp_path_factory.mktemp("policies") / "m"
    folder.mkdir()

    def clock(name: str, frames: int = 36, seconds: float = 1.2, **options) -> Path:
        times = [i * seconds / frames for i in range(frames)]
        runs = [(0.0, seconds)]
        return write_clock(folder / name, frame_seconds=times, sound_runs=runs, **options)

    good = clock("a good.mkv")
    cut_off = write_seed(folder / "corrupt.mkv", seconds=2.0)
    cut_off.write_bytes(cut_off.read_bytes()[: cut_off.stat().st_size // 2])
    shutil.copy(good, folder / "duplicate.mkv")
    clock("missing audio.mkv", channel_gains=())
    write_sound(folder / "missing video.wav")
    (folder / "missing video.wav").rename(folder / "missing video.mkv")
    clock("odd rate.mkv", frames=6)
    clock("short.mkv", frames=9, seconds=0.3)
    clock("silent.mkv", channel_gains=(0.0,))
    write_seed(folder / "z good.webm")
    names = sorted([*(path.name for path in folder.iterdir()), "missing file.mkv"])
    (folder / "list.txt").write_text("\n".join(names))
    return folder


def run(media: Path, data_dir: Path, **policies: Any) -> tuple[dict, dict, list]:
    """(report's rows, records, quarantine)"""
    given = {"folder": str(media), "files": str(media / "list.txt"), "test_fraction": 0.0}
    made = prepare("folder", data_dir, **given, **CLIP, **policies)
    folder = Path(made["directory"])
    rows = {
        row["file"]: row for row in json.loads((folder / "preflight.json").read_text())["files"]
    }
    source = open_source(folder, "train")
    records: dict[str, list] = {}
    for record in (source[i] for i in range(len(source))):
        records.setdefault(record["file"], []).append(record)
    return rows, records, json.loads((folder / "quarantine.json").read_text())


def problem_of(name: str) -> str:
    return "" if "good" in name else Path(name).stem.replace(" ", "_")


def test_skip_leaves_each_out_with_its_reason(media, tmp_path):
    rows, records, quarantine = run(media, tmp_path, **dict.fromkeys(ACTIONS, "skip"))
    assert {name: row["problem"] for name, row in rows.items()} == {n: problem_of(n) for n in rows}
    assert {problem_of(name) for name in rows} == {"", *PROBLEMS}
    assert list(records) == ["a good.mkv", "z good.webm"]
    assert [row["file"] for row in quarantine] == [name for name in rows if problem_of(name)]
    assert all(row["reason"] and row["problem"] == problem_of(row["file"]) for row in quarantine)


def test_error_names_the_files_and_every_remedy(media, tmp_path):
    with pytest.raises(PolicyError) as caught:
        run(media, tmp_path, **dict.fromkeys(ACTIONS, "error"))
    text = str(caught.value)
    assert text.startswith("8 of 10 files cannot be used: corrupt.mkv: its end is missing: ")
    assert "; and 5 more." in text
    for name, actions in ACTIONS.items():
        assert f"{name}={' or '.join(actions[1:])}" in text
    for name in ACTIONS:
        others = {**dict.fromkeys(ACTIONS, "skip"), name: "error"}
        with pytest.raises(ValueError, match=rf"{name} is 'mend'"):
            Policies(**{**others, name: "mend"})


def test_remedies_stand_for_what_a_file_lacks(media, tmp_path):
    rows, records, quarantine = run(media, tmp_path, **REMEDIES)
    assert [row["file"] for row in quarantine] == ["missing file.mkv"]
    assert {name: len(clips) for name, clips in records.items()} == {
        name: 1 if name == "short.mkv" else 2 for name in rows if name != "missing file.mkv"
    }
    assert {name: row["action"] for name, row in rows.items()} == {
        name: REMEDIES.get(f"on_{problem_of(name)}", "keep") for name in rows
    }
    for clip in records["missing audio.mkv"]:
        assert not clip["audio"].any() and clip["video"].any()
    for clip in records["missing video.mkv"]:
        assert clip["audio"].any() and not clip["video"].any()
    (short,) = records["short.mkv"]
    assert (short["video"][3:] == short["video"][3]).all()
    assert (short["video"][2] != short["video"][3]).any()
    assert np.abs(short["audio"][:4700]).max() > 10_000 and not short["audio"][4900:].any()
    for first, second in zip(records["a good.mkv"], records["duplicate.mkv"], strict=True):
        assert (first["video"] == second["video"]).all()
    assert not records["silent.mkv"][0]["audio"].any()


def inspected(problem: str, sha256: str = "", reason: str = "") -> Inspection:
    return Inspection(problem=problem, sha256=sha256, reason=reason)


def entries(*names: str) -> list[Entry]:
    return [Entry(name=name, path=Path(name), group=name) for name in names]


def test_the_first_of_equal_files_that_is_used_stays():
    names = entries("a", "b", "b", "c", "d")
    found = [inspected("", "1"), inspected("silent", "2"), inspected("silent", "2")]
    found += [inspected("silent", "2"), inspected("", "1")]
    marked = mark_duplicates(names, found, Policies())
    assert [m.problem for m in marked] == ["", "silent", "silent", "duplicate", "duplicate"]
    assert [m.reason for m in marked[3:]] == [
        "has the same content as b",
        "has the same content as a",
    ]
    # Where the first one is left out for a problem, its equals are for the same.
    found = [inspected(problem, "3") for problem in ("missing_audio", "missing_audio")]
    for policies, problems in (
        (Policies(on_missing_audio="skip"), ["missing_audio", "missing_audio"]),
        (Policies(on_missing_audio="silence"), ["missing_audio", "duplicate"]),
    ):
        marked = mark_duplicates(entries("a", "b"), found, policies)
        assert [m.problem for m in marked] == problems
    # No digest, no duplicate.
    marked = mark_duplicates(
        entries("a", "b"), [inspected("corrupt")] * 2, Policies(on_corrupt="keep")
    )
    assert [m.problem for m in marked] == ["corrupt", "corrupt"]


@pytest.mark.parametrize(
    ("known", "shown", "problem"),
    [
        ("", "", ""),
        ("", "corrupt", "corrupt"),
        ("silent", "corrupt", "corrupt"),
        ("odd_rate", "short", "short"),
        ("missing_audio", "short", "short"),
        ("short", "", "short"),
        ("corrupt", "short", "corrupt"),
    ],
)
def test_what_cutting_shows_is_not_hidden_by_a_smaller_problem(known, shown, problem):
    piece = Piece(path="x", num_clips=0, problem=shown, reason="shown by cutting")
    found = after_cutting(inspected(known, reason="known before"), piece)
    assert found.problem == problem
    assert found.reason == ("shown by cutting" if problem == shown and shown else "known before")
