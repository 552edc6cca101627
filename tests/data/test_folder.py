# SPDX-License-Identifier: Apache-2.0
"""`folder`: what is cut, split and skipped; and bounce, written as mp4 and read back."""

import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from data.bounce.bounce_dataset_builder import clip_index
from data.bounce.export_media import export_media
from mmdisco_jax.export.media import write_mp4
from mmdisco_jax.inputs.sources import open_source
from mmdisco_jax.media.policies import PolicyError
from mmdisco_jax.media.prepare import prepare
from mmdisco_jax.worlds.bounce import physics
from tests.support.clock_media import seconds_of, tone, write_clock

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


def damaged_late(path: Path) -> Path:
    """The same, with rubbish over one picture in the middle: the sound is whole."""
    rng = np.random.default_rng(0)
    video = rng.integers(0, 256, (20, 32, 32, 3), np.uint8)
    write_mp4(path, video, 0.1 * rng.normal(size=32_000), fps=10, sample_rate_hz=16_000)
    with av.open(str(path)) as container:
        packet = list(container.demux(video=0))[12]
    assert packet.pos is not None
    data = bytearray(path.read_bytes())
    data[packet.pos + 5 : packet.pos + packet.size] = bytes(packet.size - 5)
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
    assert made["quarantined"] == 0
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
    assert seen == {(row["split"], row["file"]) for row in reports(made)[0]["files"]}


def test_changed_media_or_options_are_prepared_anew(tmp_path):
    clock(tmp_path / "m" / "a.mkv", 0.6)
    options = {"folder": str(tmp_path / "m"), "test_fraction": 0.0, **CLIP}
    first = prepare("folder", tmp_path / "out", **options)
    assert prepare("folder", tmp_path / "out", **options)["already_prepared"]
    clock(tmp_path / "m" / "b.mkv", 0.6)
    second = prepare("folder", tmp_path / "out", **options)
    assert (first["splits"], second["splits"]) == ({"train": 1}, {"train": 2})
    assert second["directory"] != first["directory"]


def reports(made: dict) -> tuple[dict, list]:
    """preflight.json and quarantine.json beside the records."""
    folder = Path(made["directory"])
    names = ("preflight.json", "quarantine.json")
    first, second = (json.loads((folder / name).read_text()) for name in names)
    return first, second


def test_bad_files_are_quarantined_and_listed_or_stop_the_run(tmp_path):
    media = tmp_path / "m"
    clock(media / "good.mkv")
    clock(media / "no_sound.mkv", channel_gains=())
    clock(media / "short.mkv", 0.3)
    damaged(media / "damaged.mp4")
    (media / "text.mp4").write_text("not a video")
    options = {"folder": str(media), "test_fraction": 0.0, **CLIP}
    skip = {"on_missing_audio": "skip", "on_short": "skip"}
    made = prepare("folder", tmp_path / "out", on_corrupt="keep", **skip, **options)
    report, quarantine = reports(made)
    rows = {row["file"]: row for row in report["files"]}
    assert list(rows) == ["damaged.mp4", "good.mkv", "no_sound.mkv", "short.mkv", "text.mp4"]
    assert [row["file"] for row in quarantine] == ["no_sound.mkv", "short.mkv", "text.mp4"]
    assert made["quarantined"] == 3
    reasons = {row["file"]: row["reason"] for row in quarantine}
    assert "no sound" in reasons["no_sound.mkv"]
    assert re.search(r"0\.3\d* s of pictures with sound, of 0\.5", reasons["short.mkv"])
    assert "cannot be decoded" in reasons["text.mp4"]
    assert (rows["damaged.mp4"]["problem"], rows["damaged.mp4"]["action"]) == ("corrupt", "keep")
    kept = rows["damaged.mp4"]["clips"]
    assert 0 < kept < 4
    assert made["splits"] == {"train": 4 + kept}
    counted = report["counts"]
    wanted = {"fine": 1, "corrupt": 2, "missing_audio": 1, "short": 1}
    assert {name: count for name, count in counted.items() if count} == wanted
    # Without the clips before the damage.
    made = prepare("folder", tmp_path / "out", on_corrupt="skip", **skip, **options)
    assert (made["splits"], made["quarantined"]) == ({"train": 4}, 4)


def test_errors_list_files_and_remedies_before_and_after_cutting(tmp_path):
    media = tmp_path / "m"
    clock(media / "good.mkv")
    clock(media / "no_sound.mkv", channel_gains=())
    late = damaged_late(media / "late.mp4")
    options = {"folder": str(media), "test_fraction": 0.0, **CLIP}
    shown = []
    with pytest.raises(
        PolicyError,
        match=r"1 of 3 files.* no_sound\.mkv: has no sound.*on_missing_audio=skip or silence",
    ):
        prepare("folder", tmp_path / "out", on_corrupt="skip", show=shown.append, **options)
    assert len(shown) == 1  # nothing has been cut yet
    with pytest.raises(PolicyError, match=rf"1 of 3 .*{late.name}: .*on_corrupt=skip or keep\."):
        prepare("folder", tmp_path / "out", on_missing_audio="skip", show=shown.append, **options)
    assert list((tmp_path / "out").rglob("dataset_info.json")) == []
    # What has been cut serves the next run, with other policies as well.
    pieces = list((tmp_path / "out").rglob("*.array_record"))
    states = [piece.stat().st_mtime_ns for piece in pieces]
    assert len(pieces) == 2

    def unchanged(rows):
        assert [piece.stat().st_mtime_ns for piece in pieces] == states

    skip = {"on_missing_audio": "skip", "on_corrupt": "skip"}
    made = prepare("folder", tmp_path / "out", show=unchanged, **skip, **options)
    assert (made["splits"], made["quarantined"]) == ({"train": 4}, 2)
    assert list((tmp_path / "out").rglob("pieces.*")) == []


def test_clips_that_do_not_fit_on_the_disk_are_refused_before_cutting(tmp_path, monkeypatch):
    clock(tmp_path / "media" / "a.mkv")
    options = {"folder": str(tmp_path / "media"), **CLIP}
    clip_bytes = 5 * 16 * 16 * 3 + 2 * 8_000
    free = SimpleNamespace(free=3 * clip_bytes)
    monkeypatch.setattr("mmdisco_jax.media.work_folder.shutil.disk_usage", lambda folder: free)
    with pytest.raises(OSError, match=r"0.0 GB for clips.*Free disk space"):
        prepare("folder", tmp_path / "data", **options)
    free.free = 4 * clip_bytes
    assert prepare("folder", tmp_path / "data", **options)["splits"] == {"train": 4}


def test_nothing_to_read_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*missing"):
        prepare("folder", tmp_path / "out", folder=str(tmp_path / "missing"), **CLIP)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no media files under .*empty.*\.mp4"):
        prepare("folder", tmp_path / "out", folder=str(tmp_path / "empty"), **CLIP)
    clock(tmp_path / "m" / "short.mkv", 0.3)
    with pytest.raises(
        ValueError, match=r"none of the 1 files gives a clip.*short\.mkv: .*of 0\.5"
    ):
        prepare("folder", tmp_path / "out", folder=str(tmp_path / "m"), on_short="skip", **CLIP)
    with pytest.raises(ValueError, match=r"needs the options \['clip_seconds', 'fps'"):
        prepare("folder", tmp_path / "out", folder=str(tmp_path / "m"))
    with pytest.raises(ValueError, match=r"on_short is 'loop'.*'error', 'skip', 'hold'"):
        prepare("folder", tmp_path / "out", folder=str(tmp_path / "m"), on_short="loop", **CLIP)
    with pytest.raises(ValueError, match=r"no option \['on_bad_file'\]"):
        prepare("folder", tmp_path / "out", folder=str(tmp_path / "m"), on_bad_file="skip", **CLIP)


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
    assert made["quarantined"] == 0
    assert sum(made["splits"].values()) > 0
    for split in made["splits"]:
        source = open_source(made["directory"], split)
        for i in range(len(source)):
            record = source[i]
            assert record["video"].shape == (16, 64, 64, 3)
            assert record["audio"].shape == (25_600,)
            assert record["video"].std() > 0
