# SPDX-License-Identifier: Apache-2.0
"""`folder`: what is cut, split and skipped; and bounce, written as mp4 and read back."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from data.bounce import physics
from data.bounce.bounce_dataset_builder import clip_index
from data.bounce.export_media import export_media
from data.folder.folder_dataset_builder import split_files
from mmdisco_jax.export.media import write_mp4
from mmdisco_jax.inputs.media import MediaError, MissingAudioError
from mmdisco_jax.inputs.prepare import prepare
from mmdisco_jax.inputs.sources import open_source
from tests.inputs.clock_media import seconds_of, tone, write_clock

CLIP = {"clip_seconds": 0.5, "fps": 10, "height": 16, "width": 16, "sample_rate_hz": 16_000}
FRAMES = [i / 30 for i in range(60)]


def clock(path: Path, seconds: float = 2.0, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [t for t in FRAMES if t < seconds]
    return write_clock(path, frame_seconds=frames, sound_runs=[(0.0, seconds)], **options)


def damaged(path: Path) -> Path:
    """Two seconds of noise as mp4, with rubbish over the middle of the file."""
    rng = np.random.default_rng(0)
    video = rng.integers(0, 256, (20, 32, 32, 3), np.uint8)
    write_mp4(path, video, 0.1 * rng.normal(size=32_000), fps=10, sample_rate_hz=16_000)
    data = bytearray(path.read_bytes())
    half = len(data) // 2
    data[half : half + 4000] = rng.integers(0, 256, 4000, np.uint8).tobytes()
    path.write_bytes(bytes(data))
    return path


def test_records_keep_the_clock_and_name_their_file(tmp_path):
    for name in ("a.mkv", "deep/b.MKV", "deep/er/c.mkv"):
        clock(tmp_path / "media" / name)
    (tmp_path / "media" / "notes.txt").write_text("no media")
    made = prepare(
        "folder", tmp_path / "out", folder=str(tmp_path / "media"), test_fraction=0.3, **CLIP
    )
    assert made["splits"] == {"train": 8, "test": 4}
    assert made["skipped"] == 0
    seen = set()
    for split in ("train", "test"):
        source = open_source("folder", split, data_dir=tmp_path / "out")
        assert source.metadata["fps"] == 10
        for i in range(len(source)):
            record = source[i]
            start = record["start_seconds"][0]
            assert start == pytest.approx(0.5 * (i % 4), abs=1e-6)
            times = seconds_of(record["video"].mean(axis=(1, 2, 3)))
            assert np.abs(times - start - np.arange(5) / 10).max() < 1 / 60 + 0.0075
            heard = tone(start + np.arange(8000) / 16_000)
            assert np.abs(record["audio"] / 32768.0 - heard).max() < 0.01
            seen.add((split, record["file"]))
    assert len(seen) == 3 and {name for _, name in seen} == {"a.mkv", "deep/b.MKV", "deep/er/c.mkv"}


def test_changed_media_or_options_are_prepared_anew(tmp_path):
    clock(tmp_path / "m" / "a.mkv", 0.6)
    options = {"folder": str(tmp_path / "m"), "test_fraction": 0.0, **CLIP}
    first = prepare("folder", tmp_path / "out", **options)
    assert prepare("folder", tmp_path / "out", **options)["already_prepared"]
    clock(tmp_path / "m" / "b.mkv", 0.6)
    second = prepare("folder", tmp_path / "out", **options)
    assert (first["splits"], second["splits"]) == ({"train": 1}, {"train": 2})
    assert second["directory"] != first["directory"]


def test_bad_files_are_skipped_and_listed_or_stop_the_run(tmp_path):
    media = tmp_path / "m"
    clock(media / "good.mkv")
    clock(media / "silent.mkv", channel_gains=())
    clock(media / "short.mkv", 0.3)
    damaged(media / "damaged.mp4")
    (media / "text.mp4").write_text("not a video")
    options = {"folder": str(media), "test_fraction": 0.0, **CLIP}
    made = prepare(
        "folder", tmp_path / "out", on_missing_audio="skip", on_bad_file="skip", **options
    )
    report = json.loads((Path(made["directory"]) / "skipped.json").read_text())
    assert made["skipped"] == report["count"] == 4
    reasons = {entry["file"]: entry["reason"] for entry in report["files"]}
    assert "no sound" in reasons["silent.mkv"]
    assert "shorter than one clip" in reasons["short.mkv"]
    assert "cannot be decoded" in reasons["text.mp4"]
    kept = {entry["file"]: entry["clips_kept"] for entry in report["files"]}
    assert kept["damaged.mp4"] < 4
    assert made["splits"] == {"train": 4 + kept["damaged.mp4"]}

    with pytest.raises(MissingAudioError, match=r"silent\.mkv.*on_missing_audio='skip'"):
        prepare("folder", tmp_path / "out", on_bad_file="skip", **options)
    with pytest.raises(MediaError, match=r"damaged\.mp4.*leave it out"):
        prepare("folder", tmp_path / "out", on_missing_audio="skip", **options)
    assert len(list((tmp_path / "out").rglob("dataset_info.json"))) == 1


def test_nothing_to_read_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*missing"):
        prepare("folder", tmp_path / "out", folder=str(tmp_path / "missing"), **CLIP)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no media files under .*empty.*\.mp4"):
        prepare("folder", tmp_path / "out", folder=str(tmp_path / "empty"), **CLIP)
    clock(tmp_path / "m" / "short.mkv", 0.3)
    with pytest.raises(ValueError, match=r"would be empty.*shorter than one clip"):
        prepare("folder", tmp_path / "out", folder=str(tmp_path / "m"), on_bad_file="skip", **CLIP)
    with pytest.raises(ValueError, match=r"needs the options \['clip_seconds', 'fps'"):
        prepare("folder", tmp_path / "out", folder=str(tmp_path / "m"))


def test_files_are_split_whole_by_the_seed():
    names = [f"{i:03d}.mp4" for i in range(50)]
    splits = split_files(names, test_fraction=0.1, seed=0)
    assert len(splits["test"]) == 5
    assert sorted(splits["train"] + splits["test"]) == names
    assert split_files(names, test_fraction=0.1, seed=0) == splits
    assert split_files(names, test_fraction=0.1, seed=1) != splits
    # One more file moves at most one other.
    more = split_files([*names, "new.mp4"], test_fraction=0.1, seed=0)
    assert len(set(splits["test"]) - set(more["test"])) <= 1
    assert split_files(names[:2], test_fraction=0.01, seed=0).keys() == {"train", "test"}
    assert split_files(names, test_fraction=0.0, seed=0) == {"train": names}


def lag_samples(heard: np.ndarray, truth: np.ndarray) -> int:
    """By how many samples `heard` is late, from the peak of the cross-correlation."""
    size = 2 * len(truth)
    product = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(truth, size))
    lag = int(np.argmax(np.fft.irfft(product)))
    return lag if lag < size // 2 else lag - size


def test_bounce_as_mp4_comes_back_in_step(tmp_path):
    paths = export_media(tmp_path / "mp4", 3, write_mp4=write_mp4, seed=4)
    assert [path.name for path in paths] == [f"bounce_test_0000{i}.mp4" for i in range(3)]
    made = prepare(
        "folder",
        tmp_path / "out",
        folder=str(tmp_path / "mp4"),
        test_fraction=0.0,
        clip_seconds=physics.CLIP_SECONDS,
        fps=physics.FPS,
        height=physics.FRAME_SIZE,
        width=physics.FRAME_SIZE,
        sample_rate_hz=physics.SAMPLE_RATE_HZ,
    )
    source = open_source(made["directory"], "train")
    assert len(source) == 3
    for i in range(3):
        record, clip = source[i], physics.simulate(4, clip_index("test", i))
        truth = clip.audio.astype(np.float64)
        assert abs(lag_samples(record["audio"].astype(np.float64), truth)) <= 1
        residue = record["audio"] - truth
        assert np.sqrt((residue**2).mean()) < 0.05 * np.abs(truth).max()
        error = np.abs(record["video"].astype(int) - clip.video)
        assert error.mean() < 3.0
        # A neighbour in its place would be off by far more while the ball moves: no frame slipped.
        moving = np.abs(np.diff(clip.video.astype(int), axis=0)).mean(axis=(1, 2, 3)) > 6.0
        assert moving.sum() >= 5
        own = error.mean(axis=(1, 2, 3))[1:][moving]
        late = np.abs(record["video"].astype(int)[1:] - clip.video[:-1]).mean(axis=(1, 2, 3))
        assert (own < 0.7 * late[moving]).all()


def test_export_arguments_are_checked(tmp_path):
    with pytest.raises(ValueError, match="num_clips is 0"):
        export_media(tmp_path, 0, write_mp4=write_mp4)
    with pytest.raises(ValueError, match="'valid'"):
        export_media(tmp_path, 1, write_mp4=write_mp4, split="valid")


@pytest.mark.slow
@pytest.mark.skipif("MMDISCO_MEDIA_DIR" not in os.environ, reason="MMDISCO_MEDIA_DIR is not set")
def test_real_media_are_cut_whole(tmp_path):
    options = {"clip_seconds": 1.6, "fps": 10, "height": 64, "width": 64, "sample_rate_hz": 16_000}
    made = prepare("folder", tmp_path, folder=os.environ["MMDISCO_MEDIA_DIR"], **options)
    assert made["skipped"] == 0
    assert sum(made["splits"].values()) > 0
    for split in made["splits"]:
        source = open_source(made["directory"], split)
        for i in range(len(source)):
            record = source[i]
            assert record["video"].shape == (16, 64, 64, 3)
            assert record["audio"].shape == (25_600,)
            assert record["video"].std() > 0
