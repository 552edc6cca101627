# SPDX-License-Identifier: Apache-2.0
"""`prepare` over hundreds of damaged files: each is counted or usable, and none harms another."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mmdisco_jax.inputs.sources import open_source
from mmdisco_jax.media.isolation import PATIENCE_SECONDS
from mmdisco_jax.media.policies import ACTIONS
from tests.support.media_damage import write_damaged
from tests.support.media_seeds import write_seed
from tests.support.prepare_process import finish, start

CLIP = {"clip_seconds": 0.5, "fps": 10, "height": 16, "width": 16, "sample_rate_hz": 16_000}
GOOD = ("0000 good.mp4", "0300 good.webm", "zz good.mkv")
SKIP = {name: "skip" for name in ACTIONS}
REMEDY = {name: actions[-1] for name, actions in ACTIONS.items()}
MOST_BYTES = 1 << 30
# What never gives a clip, whatever the policies are.
HOPELESS = {"empty", "text", "zip", "noise", "no streams", "playlist", "no file"}


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> tuple[Path, Path, dict[str, str]]:
    """A folder of damaged files with three good ones, one of the good ones alone, and the kinds."""
    base = tmp_path_factory.mktemp("fuzz")
    kinds = write_damaged(base / "all", base / "seeds")
    (base / "good").mkdir()
    for index, name in enumerate(GOOD):
        shutil.copy(write_seed(base / "good" / name, seed=index + 1), base / "all")
    return base / "all", base / "good", kinds


def run(folder: Path, data_dir: Path, **options) -> tuple[dict, dict]:
    """The output of the process, and the report."""
    given = {"folder": str(folder), "data_dir": str(data_dir), "test_fraction": 0.4}
    done = finish(start({**given, **CLIP, **options}))
    report = json.loads((Path(done["summary"]["directory"]) / "preflight.json").read_text())
    return done, report


def records(done: dict, names: tuple[str, ...]) -> list[tuple]:
    """Of these files: (split, file, start, pictures, sound), in their order."""
    found = []
    for split in sorted(done["summary"]["splits"]):
        source = open_source(done["summary"]["directory"], split)
        for record in (source[i] for i in range(len(source))):
            if record["file"] in names:
                start_seconds = float(record["start_seconds"][0])
                raw = (np.asarray(record[key]).tobytes() for key in ("video", "audio"))
                found.append((split, record["file"], start_seconds, *raw))
    return found


def check_all_counted(done: dict, report: dict, kinds: dict[str, str]) -> None:
    """No file is lost, none hangs, none takes much memory, and each that is left out says why."""
    rows = {row["file"]: row for row in report["files"]}
    assert list(rows) == sorted([*kinds, *GOOD])
    assert sum(report["counts"].values()) == len(rows)
    assert report["counts"] == {
        name: sum((row["problem"] or "fine") == name for row in rows.values())
        for name in report["counts"]
    }
    for row in rows.values():
        used = row["clips"] > 0
        assert used != (row["action"] in ("skip", "error")), row
        assert used or (row["problem"] and row["reason"]), row
    assert done["summary"]["quarantined"] == sum(not row["clips"] for row in rows.values())
    clips = sum(row["clips"] for row in rows.values())
    assert clips == report["clips"] == sum(done["summary"]["splits"].values())
    for name, kind in kinds.items():
        assert kind not in HOPELESS or not rows[name]["clips"], rows[name]
    assert done["longest_seconds"] < PATIENCE_SECONDS
    assert done["peak_bytes"] < MOST_BYTES
    outcomes = {kind: Counter() for kind in kinds.values()}
    for name, kind in kinds.items():
        outcomes[kind][f"{rows[name]['problem'] or 'fine'}, {rows[name]['action']}"] += 1
    print("\n".join(f"{kind}: {dict(counted)}" for kind, counted in outcomes.items()))
    print(f"longest {done['longest_seconds']:.2f} s, peak {done['peak_bytes'] / 2**20:.0f} MiB")


def test_damaged_files_are_counted_or_used_and_harm_no_good_one(media, tmp_path):
    everything, good, kinds = media
    assert len(kinds) >= 300
    done, report = run(everything, tmp_path / "all", **SKIP)
    check_all_counted(done, report, kinds)
    rows = {row["file"]: row for row in report["files"]}
    for name in [*GOOD, *(name for name, kind in kinds.items() if kind == "odd name")]:
        assert (rows[name]["problem"], rows[name]["clips"]) == ("", 2)
    alone, _ = run(good, tmp_path / "good", **SKIP)
    wanted = records(alone, GOOD)
    assert [(split, name) for split, name, *_ in wanted[::2]] == [
        ("test", "0300 good.webm"),
        ("train", "0000 good.mp4"),
        ("train", "zz good.mkv"),
    ]
    for found, record in zip(records(done, GOOD), wanted, strict=True):
        assert found == record


@pytest.mark.slow
def test_damaged_files_under_remedies_do_not_depend_on_the_number_of_workers(media, tmp_path):
    everything, _, kinds = media
    done, report = run(everything, tmp_path / "one", num_workers=1, **REMEDY)
    check_all_counted(done, report, kinds)
    again, second = run(everything, tmp_path / "two", num_workers=2, **REMEDY)
    assert second == report
    names = tuple(row["file"] for row in report["files"])
    assert records(again, names) == records(done, names)
