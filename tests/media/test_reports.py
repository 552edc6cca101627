# SPDX-License-Identifier: Apache-2.0
"""Reports of `prepare`: any file name, what was chosen, datasets that were prepared before."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from av.video.reformatter import ColorTrc

import mmdisco_jax as mm
from mmdisco_jax.experiment import Experiment, load_config
from mmdisco_jax.media.builder import MediaBuilder
from mmdisco_jax.media.earlier import CUTTING_VERSION, EarlierCutError
from mmdisco_jax.media.policies import ACTIONS, PolicyError
from mmdisco_jax.media.prepare import prepare
from mmdisco_jax.tasks import prepare as task
from tests.support import odd_media
from tests.support.clock_media import write_clock

CLIP = {"clip_seconds": 0.5, "fps": 10, "height": 16, "width": 16, "sample_rate_hz": 16_000}
# With the second, a folder "trip [" holds the file.
ODD_NAMES = ("holiday [dQw4w9].mp4", "trip [/2024].mp4", "[bold]x[.mp4", "a, b.mp4", "<b>.mp4")


def steady(path: Path, shift: float = 0.0) -> None:
    times = [i / 30 for i in range(40)]
    write_clock(path, frame_seconds=times, sound_runs=[(shift, 1.3)])


def run(folder: Path, data_dir: Path, workdir: Path, **options: Any) -> None:
    """`mmdisco prepare --config=folder:...`"""
    changes = {f"data.options.{name}": value for name, value in options.items()}
    changes |= {"data.dir": str(data_dir), "data.options.test_fraction": 0.0}
    task.run(mm.load(f"folder:path={folder},seconds=0.5,size=16", changes), workdir)


def test_any_file_name_is_shown_as_it_is(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    folder = tmp_path / "a, b [x]"
    for index, name in enumerate(ODD_NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        steady(folder / name, 0.01 * index)
        silent = tmp_path / f"{index}" / name
        silent.parent.mkdir(parents=True)
        write_clock(
            silent,
            frame_seconds=[i / 30 for i in range(40)],
            sound_runs=[(0.0, 1.3)],
            channel_gains=(0.0,),
        )
        run(tmp_path / f"{index}", tmp_path / "data", tmp_path / "work")
        shown = " ".join(capsys.readouterr().out.split())
        assert f"{name}: has a sound track without sound" in shown
    run(folder / "a, b.mp4", tmp_path / "data", tmp_path / "one")  # a single file
    assert "a, b.mp4" in capsys.readouterr().out
    run(folder, tmp_path / "data", tmp_path / "work")
    report = json.loads((tmp_path / "work" / "preflight.json").read_text())
    assert {row["file"] for row in report["files"]} == set(ODD_NAMES)
    page = (tmp_path / "work" / "preflight.html").read_text()
    assert "holiday [dQw4w9].mp4" in page and "&lt;b&gt;.mp4" in page and "<b>.mp4" not in page


def test_what_was_chosen_and_changed_is_told(tmp_path, capsys):
    folder = tmp_path / "m"
    folder.mkdir()
    odd_media.write_bars(folder / "hdr.mkv", ColorTrc.ARIB_STD_B67)
    odd_media.write_oriented(folder / "turned.mp4", "transposed")
    run(folder, tmp_path / "data", tmp_path / "work", on_hdr="convert")
    shown = capsys.readouterr().out
    assert "--config.data.options.on_hdr=error|skip|keep|convert" in shown
    assert "mirrored and turned by 90 degrees clockwise" in shown
    rows = json.loads((tmp_path / "work" / "preflight.json").read_text())["files"]
    assert [(row["problem"], row["action"]) for row in rows] == [("hdr", "convert"), ("", "keep")]
    assert "HLG BT.2020" in rows[0]["reason"] and "mirrored" in rows[1]["changes"]
    page = (tmp_path / "work" / "preflight.html").read_text()
    assert "HLG BT.2020" in page and "mirrored and turned" in page
    # Prepared already: the same page again, pictures and all.
    run(folder, tmp_path / "data", tmp_path / "again", on_hdr="convert")
    assert '"already_prepared": true' in capsys.readouterr().out
    assert (tmp_path / "again" / "preflight.html").read_text() == page
    assert "data:image/jpeg" in page


def test_the_worst_problem_decides_whatever_the_order(tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    steady(folder / "good.mkv")
    write_clock(  # silent, and with too few frames
        folder / "odd.mkv",
        frame_seconds=[0.0, 0.4, 0.8, 1.2],
        sound_runs=[(0.0, 1.3)],
        channel_gains=(0.0,),
    )
    with pytest.raises(PolicyError, match=r"odd\.mkv: has 3.* frames.*on_odd_rate"):
        prepare("folder", tmp_path / "d", folder=str(folder), on_odd_rate="error", **CLIP)
    made = prepare("folder", tmp_path / "d", folder=str(folder), on_odd_rate="skip", **CLIP)
    assert made["quarantined"] == 1


def as_version_1(directory: Path) -> None:
    """The report as it was before it named its version."""
    report = directory / "preflight.json"
    content = json.loads(report.read_text())
    del content["cutting"]
    report.write_text(json.dumps(content))


def test_what_an_earlier_version_has_cut_otherwise_is_never_mixed_in(tmp_path):
    folder, data = tmp_path / "m", tmp_path / "data"
    folder.mkdir()
    steady(folder / "good.mkv")
    made = Path(prepare("folder", data, folder=str(folder), **CLIP)["directory"])
    as_version_1(made)
    again = prepare("folder", data, folder=str(folder), **CLIP)
    assert again["already_prepared"] and again["directory"] == str(made)
    assert json.loads((made / "preflight.json").read_text())["cutting"] == CUTTING_VERSION
    odd_media.write_bars(folder / "phone.mkv", ColorTrc.SMPTE2084)
    made = Path(prepare("folder", data, folder=str(folder), **CLIP)["directory"])
    as_version_1(made)
    with pytest.raises(EarlierCutError, match=r"1 of its files otherwise: phone\.mkv: has high"):
        prepare("folder", data, folder=str(folder), **CLIP)
    shutil.rmtree(made)
    assert not prepare("folder", data, folder=str(folder), **CLIP)["already_prepared"]


def test_remedies_that_reports_name_are_options_of_the_config():
    # Without being part of what a run of before has recorded.
    named = {"data.options.on_hdr": "keep", "data.options.channels": "left"}
    plain = Experiment.from_config(load_config("folder:/x"))
    changed = Experiment.from_config(load_config("folder:/x", named))
    new = set(changed.resolved["data"]["options"]) - set(plain.resolved["data"]["options"])
    assert new == {"on_hdr", "channels"}
    assert set(load_config("folder:/x").to_dict()["data"]["options"]) >= {*ACTIONS, "channels"}
    assert load_config("folder:/a, b [x]").to_dict()["data"]["options"]["folder"] == "/a, b [x]"


def test_later_options_are_in_a_name_only_where_they_change_something(tmp_path):
    from mmdisco_jax.datasets import DATASETS

    steady(tmp_path / "a.mkv")
    builder = DATASETS.get("folder")
    assert issubclass(builder, MediaBuilder)

    def name(**options: str) -> str:
        return builder.config(folder=str(tmp_path), **CLIP, **options).name

    assert name() == name(on_hdr="convert", on_several_tracks="keep")
    names = {name(on_hdr="keep"), name(on_interlaced="skip"), name(on_no_times="error"), name()}
    assert len(names) == 4
