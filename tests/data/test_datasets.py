# SPDX-License-Identifier: Apache-2.0
"""The datasets' own rules: which files, which parts, which splits, which captions."""

import os
from pathlib import Path

import pytest

from mmdisco_jax.datasets import DATASETS
from mmdisco_jax.inputs.pipeline import make_train_iterator
from mmdisco_jax.inputs.sources import open_source
from mmdisco_jax.inputs.windows import WindowSize
from mmdisco_jax.media.prepare import prepare
from tests.support.clock_media import seconds_of, write_clock

CLIP = {"clip_seconds": 0.5, "fps": 10, "height": 16, "width": 16, "sample_rate_hz": 16_000}
ROOT = Path(__file__).resolve().parents[2]


def clock(path: Path, seconds: float = 1.1) -> None:
    """A file in which every picture tells its time; no two have the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    clock.files = getattr(clock, "files", 0) + 1
    frames = [i / 30 for i in range(round(30 * seconds))]
    size = (16, 16 + 2 * clock.files)
    write_clock(path, frame_seconds=frames, sound_runs=[(0.0, seconds)], size=size)


def splits_of(options: dict, name: str) -> dict[str, str]:
    """{file: split} as the dataset `name` lists them, before anything is read."""
    from mmdisco_jax.media.entries import assign_splits

    chosen = DATASETS.get(name).OPTIONS(**options)
    entries = assign_splits(chosen.entries(), chosen.shares(), seed=chosen.seed)
    return {entry.name: entry.split for entry in entries}


def test_a_new_dataset_is_a_file_and_a_line(tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS.entries, "toy_clips", "tests.support.toy_clips:ToyClips")
    for number in range(4):
        clock(tmp_path / "m" / f"ball_{number}.mkv")
    made = prepare("toy_clips", tmp_path / "out", folder=str(tmp_path / "m"), **CLIP)
    assert made["splits"] == {"train": 4, "test": 4}
    source = open_source("toy_clips", "train", data_dir=tmp_path / "out")
    assert [source[i]["file"] for i in (0, 2)] == ["ball_0.mkv", "ball_2.mkv"]
    assert source[0]["caption"] == "ball"
    window = WindowSize(num_frames=3, num_samples=4800)
    batch = next(make_train_iterator(source, batch_size=2, seed=0, window=window))
    assert batch["video"].shape == (2, 3, 16, 16, 3)


def test_long_videos_skip_the_start_and_split_by_video(tmp_path):
    clock(tmp_path / "m" / "a.mkv", 2.6)
    clock(tmp_path / "m" / "b.mkv", 0.9)
    options = {"folder": str(tmp_path / "m"), **CLIP, "skip_seconds": 1.0, "on_short": "skip"}
    made = prepare("long_videos", tmp_path / "out", **options)
    assert made["splits"] == {"train": 3} and made["quarantined"] == 1
    source = open_source("long_videos", "train", data_dir=tmp_path / "out")
    starts = [source[i]["start_seconds"][0] for i in range(3)]
    assert starts == pytest.approx([1.0, 1.5, 2.0], abs=2e-3)
    shown = [seconds_of(source[i]["video"][0, 8, 8].mean()) for i in range(3)]
    assert shown == pytest.approx(starts, abs=1 / 60 + 0.0075)
    for number in range(60):
        (tmp_path / "n").mkdir(exist_ok=True)
        (tmp_path / "n" / f"{number}.mp4").touch()
    shares = {"folder": str(tmp_path / "n"), **CLIP}
    splits = list(splits_of(shares, "long_videos").values())
    assert set(splits) == {"train", "eval", "test"} and splits.count("train") > 45
    assert splits_of(shares | {"seed": 1}, "long_videos") != splits_of(shares, "long_videos")


def test_vggsound_reads_its_table(tmp_path):
    clock(tmp_path / "m" / "aaaaaaaaaaa_000030.mkv")
    clock(tmp_path / "m" / "deep" / "bbbbbbbbbbb_1000_11000.mkv")
    clock(tmp_path / "m" / "ccccccccccc.mkv", 2.8)
    table = tmp_path / "vggsound.csv"
    table.write_text(
        'aaaaaaaaaaa,30,dog barking,train\nbbbbbbbbbbb,1,"wind, rain",test\n'
        "ccccccccccc,1,bell,train\nddddddddddd,5,gone,train\n"
    )
    options = {"folder": str(tmp_path / "m"), "table": str(table), **CLIP}
    made = prepare("vggsound", tmp_path / "out", **options)
    assert made["quarantined"] == 1
    train = open_source("vggsound", "train", data_dir=tmp_path / "out")
    rows = [train[i] for i in range(len(train))]
    assert [row["caption"] for row in rows] == ["dog barking"] * 2 + ["bell"] * 3
    assert rows[2]["start_seconds"][0] == pytest.approx(1.0, abs=2e-3)  # of the whole video
    test = open_source("vggsound", "test", data_dir=tmp_path / "out")
    assert test[0]["caption"] == "wind, rain"
    table.write_text("aaaaaaaaaaa,soon,dog barking,train\n")
    with pytest.raises(ValueError, match=r"row 1 is \['aaaaaaaaaaa', 'soon'"):
        prepare("vggsound", tmp_path / "out", **options)


def test_cameras_and_pieces_of_one_source_share_a_split(tmp_path):
    names = [f"gBR_sBM_c0{c}_d04_mBR{m}_ch01.mp4" for c in range(1, 10) for m in range(6)]
    for name in names:
        (tmp_path / name).touch()
    splits = splits_of({"folder": str(tmp_path), **CLIP}, "aist_plus_plus")
    for music in range(6):
        assert len({split for name, split in splits.items() if f"mBR{music}" in name}) == 1
    folder = tmp_path / "landscape"
    for name in ("train/fire_1_2.mp4", "test/fire_1_3.mp4", "rain_7_1.mp4", "rain_7_2.mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    splits = splits_of({"folder": str(folder), **CLIP}, "landscape")
    assert splits["train/fire_1_2.mp4"] == "train" and splits["test/fire_1_3.mp4"] == "test"
    assert splits["rain_7_1.mp4"] == splits["rain_7_2.mp4"]


def test_every_dataset_says_what_it_is():
    for name in DATASETS.names():
        if name == "toy_clips":
            continue
        text = (ROOT / "data" / name / "README.md").read_text()
        assert text.startswith(f"# {name}\n")
        for word in ("Licence", "Splits"):
            assert word in text, f"{name} does not tell its {word.lower()}"
        assert os.path.exists(ROOT / "data" / name / f"{name}_dataset_builder.py")
