# SPDX-License-Identifier: Apache-2.0
"""The same pictures and the same sound give the same clips out of every container."""

import dataclasses
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from mmdisco_jax.media.container import open_media
from mmdisco_jax.media.cutting import ClipSpec, Window, iter_windows
from tests.support.transcode import LAYOUTS, first_picture_seconds, write_media
from tests.support.windows import window_at

SPEC = ClipSpec(clip_seconds=1.0, fps=25, height=64, width=64, sample_rate_hz=16_000)
SECONDS = 4.2
# At most so many levels of mean error in a picture, at least so many dB of sound above its error.
# MPEG-4 part 2 cannot say where swscale has put the chroma; the palette of the GIF is a fixed one.
BOUNDS = {
    "mp4_h264": (3, 30),
    "mp4_hevc": (3, 30),
    "mp4_mpeg4": (5, 30),
    "mov_pcm": (3, 60),
    "mkv": (3, 30),
    "webm": (3, 30),
    "ts_mp3": (3, 20),
    "ts_aac": (3, 30),
    "avi": (4, 60),
    "gif": (20, 60),
}


def scene(seconds: np.ndarray) -> np.ndarray:
    """Waves of three colours running apart, an eighth of a wave in 1/25 s; uint8 [f 64 64 3]."""
    rows, columns = np.mgrid[:64, :64] / 32
    turns = np.asarray(seconds)[:, None, None] * 25 / 8
    waves = [np.sin(2 * np.pi * (way + turns)) for way in (rows, columns, -(rows + columns) / 2)]
    return np.rint(128 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def tones(seconds: np.ndarray) -> np.ndarray:
    """Another tone every 0.2 s, each fading in and out."""
    number, phase = np.divmod(seconds, 0.2)
    hertz = 300 * 1.37 ** (number * 5 % 8)
    return 0.5 * np.sin(np.pi * phase / 0.2) * np.sin(2 * np.pi * hertz * phase)


def distance(pictures: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean absolute error of each picture, in levels."""
    return np.abs(pictures.astype(np.float32) - truth).mean(axis=(1, 2, 3))


def clearness_db(heard: np.ndarray, truth: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(truth**2) / np.mean((heard - truth) ** 2)))


def lag(heard: np.ndarray, truth: np.ndarray, reach: int = 40) -> int:
    """By how many samples what is heard is late, of up to `reach`."""
    middle = truth[reach:-reach]
    pieces = np.lib.stride_tricks.sliding_window_view(heard, len(middle))
    return int(np.argmax([(piece * middle).sum() for piece in pieces])) - reach


def written_windows(
    folder: Path,
    name: str,
    *,
    interval: Fraction,
    pictures: np.ndarray,
    sound: np.ndarray,
    spec: ClipSpec,
) -> tuple[list[Window], float]:
    """The windows of the pictures and the sound written, and the time of the first picture."""
    layout = LAYOUTS[name]
    if layout.tick > Fraction(1, 100):  # AVI: its tick is the interval
        layout = dataclasses.replace(layout, tick=interval)
    path, sound_path = write_media(
        folder / name,
        layout,
        pictures=pictures,
        frame_seconds=[float(i * interval) for i in range(len(pictures))],
        sound=sound,
    )
    windows = list(iter_windows(path, spec, sound_path=sound_path))
    return windows, first_picture_seconds(path)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_container_gives_the_same_clips(tmp_path, name):
    pictures = scene(np.arange(round(SECONDS * SPEC.fps)) / SPEC.fps)
    rate = LAYOUTS[name].sound_rate_hz
    windows, begin = written_windows(
        tmp_path,
        name,
        interval=Fraction(1, 25),
        pictures=pictures,
        sound=tones(np.arange(round(SECONDS * rate)) / rate),
        spec=SPEC,
    )
    starts = [window.start_seconds - begin for window in windows]
    assert starts == pytest.approx([0, 1, 2, 3], abs=1.1e-3)
    levels, decibels = BOUNDS[name]
    for k, window in enumerate(windows):
        own = np.arange(SPEC.num_frames) + k * SPEC.num_frames
        assert distance(window.video, pictures[own]).max() < levels
        assert distance(window.video, pictures[own + 1]).min() > 2 * levels
        assert distance(window.video[1:], pictures[own[:-1]]).min() > 2 * levels
        truth = tones(np.arange(SPEC.num_samples) / SPEC.sample_rate_hz + k)
        assert lag(window.audio / 32768, truth) == 0
        assert clearness_db(window.audio / 32768, truth) > decibels


def test_a_title_that_is_not_utf8_is_no_error(tmp_path):
    path = tmp_path / "titled.mp4"
    with av.open(path, "w") as container:
        container.metadata["title"] = "TITLE!"
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        for picture in scene(np.arange(4) / 25):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    assert path.read_bytes().count(b"TITLE!") == 1
    path.write_bytes(path.read_bytes().replace(b"TITLE!", b"T\xe9\xff\xfeE!"))
    with open_media(path) as container:
        assert container.metadata["title"].startswith("T")


def excerpt(path: Path, sample_rate_hz: int) -> Window:
    spec = dataclasses.replace(SPEC, clip_seconds=4.2, fps=10, sample_rate_hz=sample_rate_hz)
    return window_at(path, 20.0, spec)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_container_gives_the_same_clips_of_a_real_file(tmp_path, name):
    if "MMDISCO_MEDIA_DIR" not in os.environ:
        pytest.skip("set MMDISCO_MEDIA_DIR to a folder with landscape.mp4")
    path = Path(os.environ["MMDISCO_MEDIA_DIR"]) / "landscape.mp4"
    spec = dataclasses.replace(SPEC, fps=10)
    wanted = excerpt(path, spec.sample_rate_hz)
    windows, begin = written_windows(
        tmp_path,
        name,
        interval=Fraction(1, 10),
        pictures=wanted.video,
        sound=excerpt(path, LAYOUTS[name].sound_rate_hz).audio / 32768,
        spec=spec,
    )
    starts = [window.start_seconds - begin for window in windows]
    assert starts == pytest.approx([0, 1, 2, 3], abs=1.1e-3)
    levels, decibels = BOUNDS[name]
    for k, window in enumerate(windows):
        # The excerpt has cuts: there a picture too early or late is off by 40 levels.
        own = wanted.video[k * spec.num_frames : (k + 1) * spec.num_frames]
        assert distance(window.video, own).max() < levels
        truth = wanted.audio[k * spec.num_samples : (k + 1) * spec.num_samples] / 32768
        assert lag(window.audio / 32768, truth) == 0
        assert clearness_db(window.audio / 32768, truth) > min(decibels, 22)  # twice resampled
