# SPDX-License-Identifier: Apache-2.0
"""Files without times and with several tracks: cut, in step, and by the track that is meant."""

import dataclasses
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition

from mmdisco_jax.media.cutting import ClipSpec, MissingVideoError, Part, iter_windows
from mmdisco_jax.media.frames import timed
from mmdisco_jax.media.inspection import Inspection, inspect, problems_of
from tests.support.odd_media import FPS, RATE_HZ, TICK, scene, tone, write_film

SPEC = ClipSpec(clip_seconds=1.0, fps=FPS, height=16, width=16, sample_rate_hz=16_000)
SECONDS = 3.2
FLASH_EVERY = 0.4


def inspected(path: Path, spec: ClipSpec = SPEC) -> Inspection:
    return inspect(str(path), None, spec, lambda: None)


def flashes() -> list[av.VideoFrame]:
    """A bright picture every 0.4 s, among dark ones; of noise, because a camera's are large."""
    period, rng = round(FLASH_EVERY * FPS), np.random.default_rng(0)
    pictures = []
    for index in range(round(SECONDS * FPS)):
        noise = rng.integers(0, 50, (64, 64, 3)) + 200 * (index % period == 0)
        frame = av.VideoFrame.from_ndarray(noise.astype(np.uint8), format="rgb24")
        pictures.append(frame.reformat(format="yuv420p"))
    return pictures


def clicks(rate_hz: int = RATE_HZ) -> np.ndarray:
    """20 ms of 1 kHz every 0.4 s."""
    seconds = np.arange(round(SECONDS * rate_hz)) / rate_hz
    phase = seconds % FLASH_EVERY
    return 0.8 * np.sin(2 * np.pi * 1000 * phase) * (phase < 0.02)


# name: (FFmpeg's name, codec, its options, sound)
CONTAINERS = {
    "wma1.wmv": ("asf", "wmv2", {}, "wmav1"),
    "wma2.wmv": ("asf", "wmv2", {}, "wmav2"),
    "h264_aac.avi": ("avi", "libx264", {"bf": "2", "preset": "veryfast"}, "aac"),
    "h264_mp3.avi": ("avi", "libx264", {"bf": "3", "b-pyramid": "normal"}, "libmp3lame"),
    "mpeg4_pcm.avi": ("avi", "mpeg4", {"bf": "2"}, "pcm_s16le"),
    "mpeg2.mpg": ("vob", "mpeg2video", {"bf": "2"}, "mp2"),
    "flv1.flv": ("flv", "flv1", {}, "libmp3lame"),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_with_few_times_are_cut_in_step(tmp_path, name):
    form, codec, options, sound = CONTAINERS[name]
    heard = clicks(44_100 if "wma" in sound else RATE_HZ)
    path = write_film(
        tmp_path / name, flashes(), form=form, codec=codec, options=options, sounds=[(sound, heard)]
    )
    assert set(problems_of(inspected(path))) <= {"no_times"}
    windows = list(iter_windows(path, SPEC))
    assert len(windows) >= 2
    for window in windows:
        light = window.video.mean(axis=(1, 2, 3))
        shown = np.flatnonzero((light[1:] > 128) & (light[:-1] < 128)) + 1
        loud = np.flatnonzero(np.abs(window.audio / 32768) > 0.2)
        begun = loud[np.diff(loud, prepend=-10_000) > 1600]
        assert len(shown) >= 2 and len(begun) >= 2
        apart = (shown[:, None] / SPEC.fps - begun / SPEC.sample_rate_hz) % FLASH_EVERY
        apart = np.minimum(apart, FLASH_EVERY - apart).max()
        assert apart < 0.51 / FPS, f"{name}: {apart:.4f} s"


def test_times_that_a_decoder_lost_are_filled_and_others_stay():
    pictures = scene(7)
    for picture, pts in zip(pictures, [0, 3, None, None, 11, None, None], strict=True):
        picture.pts, picture.time_base = pts, TICK
    assert [frame.pts for frame in timed(iter(pictures), 1 / FPS)] == [0, 3, 4, 5, 11, 12, 13]


def test_a_wrong_guess_that_goes_back_becomes_the_last_time():
    pictures = scene(5)
    for picture, pts in zip(pictures, [0, 5, 3, 4, 6], strict=True):
        picture.pts, picture.time_base = pts, TICK
    assert [f.pts for f in timed(iter(pictures), 1 / FPS, guessed=True)] == [0, 5, 5, 5, 6]


def with_tracks(
    path: Path, sounds: list[tuple[str, np.ndarray]], marks: dict[int, int], *, frames: int = 40
) -> Path:
    """A Matroska file; `marks` are dispositions by track (0 is the film)."""

    def set_marks(container: Any) -> None:
        for index, stream in enumerate(container.streams):
            stream.disposition = Disposition(marks.get(index, 0))

    return write_film(path, scene(frames), sounds=sounds, streams=set_marks)


def loudness(path: Path) -> float:
    (window, *_) = iter_windows(path, SPEC)
    return float(np.abs(window.audio / 32768).max())


LOUD, QUIET = ("pcm_s16le", tone(1.6)), ("pcm_s16le", 0.2 * tone(1.6))
DEFAULT, COMMENT = Disposition.default.value, Disposition.comment.value


@pytest.mark.parametrize(
    ("sounds", "marks", "chosen"),
    [
        ([LOUD, QUIET], {1: DEFAULT, 2: DEFAULT}, 1),
        ([LOUD, QUIET], {}, 1),
        ([QUIET, LOUD], {2: DEFAULT}, 2),
        ([QUIET, LOUD], {1: COMMENT}, 2),
        ([QUIET, LOUD], {1: DEFAULT | COMMENT, 2: DEFAULT}, 2),
        ([QUIET, LOUD], {1: DEFAULT | COMMENT}, 1),
    ],
)
def test_sound_is_the_default_track_and_not_a_comment(tmp_path, sounds, marks, chosen):
    path = with_tracks(tmp_path / "a.mkv", sounds, marks)
    wanted = 0.5 if sounds[chosen - 1] is LOUD else 0.1
    assert loudness(path) == pytest.approx(wanted, abs=0.02)
    found = inspected(path)
    assert found.problem == "several_tracks"
    assert f"track {chosen} is used" in found.reason and "pcm_s16le" in found.reason


def test_tracks_that_no_decoder_knows_are_passed_over(tmp_path):
    path = with_tracks(tmp_path / "a.mkv", [QUIET, LOUD], {1: DEFAULT})
    data = path.read_bytes()
    known = b"A_PCM/INT/LIT"
    assert data.count(known) == 2
    path.write_bytes(data.replace(known, b"A_XYZ/INT/LIT", 1))
    assert loudness(path) == pytest.approx(0.5, abs=0.02)
    found = inspected(path)
    assert found.problem == "several_tracks"
    assert "1: unknown codec" in found.reason and "track 2 is used, not the first" in found.reason
    path.write_bytes(data.replace(known, b"A_XYZ/INT/LIT"))
    assert inspected(path).problem == "corrupt"


def test_a_track_whose_beginning_is_damaged_is_passed_over(tmp_path):
    path = with_tracks(tmp_path / "a.mkv", [("flac", 0.2 * tone(1.6)), LOUD], {1: DEFAULT})
    data = bytearray(path.read_bytes())
    at = data.index(b"fLaC")
    data[at + 8 : at + 42] = bytes(34)  # its stream info
    path.write_bytes(data)
    assert loudness(path) == pytest.approx(0.5, abs=0.02)


def test_a_sound_track_without_sound_samples_is_passed_over(tmp_path):
    path = write_film(
        tmp_path / "a.mkv",
        scene(40),
        streams=lambda container: container.add_stream("pcm_s16le", rate=RATE_HZ, layout="mono"),
        sounds=[LOUD],
    )
    assert loudness(path) == pytest.approx(0.5, abs=0.02)
    found = inspected(path)
    assert found.problem == "several_tracks" and "track 1 is used" in found.reason


def with_cover(path: Path, *, film: bool, flag: bool) -> Path:
    """A file whose first picture track is one JPEG, with or without the mark of a cover."""
    with av.open(str(path), "w", format="matroska") as container:
        cover: Any = container.add_stream("mjpeg", rate=FPS)
        cover.width = cover.height = 32
        cover.pix_fmt = "yuvj420p"
        cover.disposition = Disposition.attached_pic if flag else Disposition.default
        packets = list(cover.encode(av.VideoFrame(32, 32, "yuvj420p")))
        if film:
            pictures: Any = container.add_stream("ffv1", rate=FPS)
            pictures.width, pictures.height, pictures.pix_fmt = 96, 64, "yuv420p"
            pictures.disposition = Disposition(0)
            for index, picture in enumerate(scene(40)):
                picture.pts = index
                packets += pictures.encode(picture)
            packets += pictures.encode(None)
        sound: Any = container.add_stream("pcm_s16le", rate=RATE_HZ, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            tone(1.6).astype(np.float32)[None], format="fltp", layout="mono"
        )
        frame.sample_rate, frame.pts = RATE_HZ, 0
        packets += [*sound.encode(frame), *sound.encode(None)]
        for packet in sorted(packets, key=lambda p: float((p.dts or 0) * p.time_base)):
            container.mux(packet)
    return path


@pytest.mark.parametrize("flag", [False, True])
def test_a_still_is_no_film(tmp_path, flag):
    both = with_cover(tmp_path / "both.mkv", film=True, flag=flag)
    (window, *_) = iter_windows(both, dataclasses.replace(SPEC, height=64, width=96))
    assert window.video[0].std() > 20  # the film, and not the black cover
    alone = with_cover(tmp_path / "alone.mkv", film=False, flag=flag)
    assert inspected(alone).problem == "missing_video"
    with pytest.raises(MissingVideoError, match="no moving pictures"):
        list(iter_windows(alone, SPEC))
    (window, *_) = iter_windows(alone, SPEC, Part(black=True))
    assert not window.video.any() and window.audio.any()


def test_silence_is_judged_where_the_sound_is_mixed(tmp_path):
    wave = tone(1.6)
    opposite = np.stack([wave, -wave], axis=-1)
    centre = np.zeros((len(wave), 6))
    centre[:, 2] = wave
    cases = {
        # (samples, codec): {channels: the remedy named, or "" for sound}
        "opposite": (opposite, {"mono": "channels=left", "left": "", "stereo": ""}),
        "lossy": (opposite, {"mono": "channels=left", "left": "", "stereo": ""}),
        "centre only": (centre, {"mono": "", "left": "channels=mono", "stereo": ""}),
        "nearly opposite": (opposite * [1, 0.9], {"mono": "", "left": ""}),
    }
    for name, (samples, remedies) in cases.items():
        codec = "aac" if name == "lossy" else "flac"
        path = with_tracks(tmp_path / f"{name}.mkv", [(codec, samples)], {})
        for channels, remedy in remedies.items():
            spec = dataclasses.replace(SPEC, channels=channels)
            found = inspected(path, spec)
            assert (found.problem == "silent") == bool(remedy), (name, channels, found)
            assert remedy in found.reason
            if remedy:
                other = dataclasses.replace(spec, channels=remedy.split("=")[1])
                (window, *_) = iter_windows(path, other)
                assert np.abs(window.audio).max() > 1000
