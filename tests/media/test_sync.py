# SPDX-License-Identifier: Apache-2.0
"""Flashes and clicks at known times: where they are in the clips, container by container.

A flash is one white picture, a click a chirp of 10 ms; both come at irregular times, and in most
files the pictures do too. Every picture lasts longer than a frame of the clip. So its first frame
is off by at most half a frame of the clip, which is the smaller half and the stricter test.
"""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from mmdisco_jax.inputs.windows import RandomWindow, WindowSize
from mmdisco_jax.media import cutting as media
from mmdisco_jax.media.cutting import ClipSpec, Part, Window, iter_windows
from tests.support.transcode import (
    LAYOUTS,
    Layout,
    first_picture_seconds,
    kept_times,
    write_media,
)

SPEC = ClipSpec(clip_seconds=2.0, fps=25, height=32, width=32, sample_rate_hz=16_000)
LONG = dataclasses.replace(SPEC, clip_seconds=4.0)
HALF_FRAME = 0.5 / SPEC.fps
SAMPLE = 1 / SPEC.sample_rate_hz
CLICK_SECONDS = 0.010
END_SECONDS = 4.7
MARGIN_SECONDS = 0.06
# Whether the pictures are evenly spaced, when they begin, when the sound begins.
CASES = {"steady": (True, 0.377, 0.15), "varied": (False, 0.0, 0.313)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Signals:
    """Files of one case, and when they flash and click on the file's clock, seconds."""

    path: Path
    sound_path: Path | None
    flashes: np.ndarray
    clicks: np.ndarray


def click(seconds: np.ndarray) -> np.ndarray:
    """0.5 kHz to 6.5 kHz in 10 ms, beginning at 0: its autocorrelation is 3 samples wide."""
    inside = (seconds >= 0) & (seconds < CLICK_SECONDS)
    t = np.where(inside, seconds, 0.0)
    sweep = np.sin(2 * np.pi * (500 * t + 0.5 * 6000 / CLICK_SECONDS * t**2))
    return 0.8 * inside * np.sin(np.pi * t / CLICK_SECONDS) ** 0.5 * sweep


def picture_times(layout: Layout, *, steady: bool, begin: float) -> list[float]:
    if steady:
        times = np.arange(begin, END_SECONDS, 0.05)
    else:
        gaps = np.random.default_rng(1).uniform(0.045, 0.095, 110)
        times = begin + np.cumsum(gaps) - gaps[0]
    return sorted(set(kept_times(layout, times[times < END_SECONDS])))


def write_signals(
    folder: Path, layout: Layout, *, steady: bool, pictures_begin: float, sound_begin: float
) -> Signals:
    times = picture_times(layout, steady=steady, begin=pictures_begin)
    rng = np.random.default_rng(2)
    flashing = np.cumsum(rng.integers(4, 8, len(times)))
    flashing = flashing[flashing < len(times)]
    clicks = sound_begin + np.cumsum(rng.uniform(0.15, 0.4, 20))
    clicks = clicks[clicks < END_SECONDS - 0.1]
    pictures = np.full((len(times), SPEC.height, SPEC.width, 3), 16, np.uint8)
    pictures[flashing] = 255
    rate = layout.sound_rate_hz
    seconds = np.arange(round(sound_begin * rate), round(END_SECONDS * rate)) / rate
    sound = np.zeros_like(seconds)
    for begin in clicks:
        near = slice(*np.searchsorted(seconds, [begin, begin + CLICK_SECONDS]))
        sound[near] = click(seconds[near] - begin)
    path, sound_path = write_media(
        folder / "signals",
        layout,
        pictures=pictures,
        frame_seconds=times,
        sound=sound,
        sound_start=sound_begin,
    )
    shift = first_picture_seconds(path) - times[0] if not layout.begins_at_zero else 0.0
    return Signals(
        path=path,
        sound_path=sound_path,
        flashes=np.array(times)[flashing] + shift,
        clicks=clicks + shift,
    )


def flashes_of(window: Window) -> np.ndarray:
    """Times at which a frame is white and the one before it is not."""
    white = window.video.mean(axis=(1, 2, 3)) > 128
    return window.start_seconds + (1 + np.flatnonzero(white[1:] & ~white[:-1])) / SPEC.fps


def clicks_of(window: Window) -> np.ndarray:
    """Peaks of the correlation with the click, to a quarter of a sample."""
    length = round(CLICK_SECONDS * SPEC.sample_rate_hz) + 1
    likeness = np.zeros(4 * (len(window.audio) - length + 1))
    for quarter in range(4):
        known = click((np.arange(length) - quarter / 4) * SAMPLE)
        likeness[quarter::4] = np.correlate(window.audio / 32768.0, known) / (known @ known)
    peaks = []
    likely = np.flatnonzero(likeness > 0.5)
    for candidate in likely[np.argsort(-likeness[likely])]:
        if all(abs(candidate - peak) > 4 * length for peak in peaks):
            peaks.append(candidate)
    return window.start_seconds + np.sort(peaks) / 4 * SAMPLE


def errors(found: np.ndarray, truth: np.ndarray, begin: float, end: float) -> np.ndarray:
    """Found minus true times of what is clear of the window's ends; nothing else is found."""
    apart = np.abs(found[:, None] - truth)
    sure = (truth > begin + MARGIN_SECONDS) & (truth < end - MARGIN_SECONDS)
    if len(found):
        assert apart.min(axis=1).max() < MARGIN_SECONDS, "found what is not there"
    assert not sure.any() or (len(found) and apart.min(axis=0)[sure].max() < MARGIN_SECONDS)
    return (found[apart.argmin(axis=0)] - truth)[sure] if sure.any() else np.zeros(0)


def timing_errors(window: Window, signals: Signals) -> tuple[np.ndarray, np.ndarray]:
    """Of the flashes and of the clicks of one window, seconds."""
    ends = window.start_seconds, window.start_seconds + len(window.video) / SPEC.fps
    return (
        errors(flashes_of(window), signals.flashes, *ends),
        errors(clicks_of(window), signals.clicks, *ends),
    )


def assert_in_step(windows: list[Window], signals: Signals, layout: Layout) -> None:
    """Pictures within half a frame, sound within a sample (but for what FFmpeg misplaces)."""
    seen, heard = zip(*(timing_errors(window, signals) for window in windows), strict=True)
    seen, heard = np.concatenate(seen), np.concatenate(heard)
    assert len(seen) > 3 and len(heard) > 3
    rounded = 1e-4  # the tick of MPEG-TS is 11 us, and a tie may go either way
    assert np.abs(seen).max() < HALF_FRAME + rounded
    assert np.abs(heard).max() < SAMPLE + layout.misplaced_seconds
    apart = max(heard.max() - seen.min(), seen.max() - heard.min())
    assert apart < HALF_FRAME + rounded + SAMPLE + layout.misplaced_seconds


@pytest.fixture(scope="module", params=itertools.product(LAYOUTS, CASES), ids="-".join)
def written(request, tmp_path_factory) -> tuple[Signals, Layout]:
    name, case = request.param
    steady, pictures_begin, sound_begin = CASES[case]
    layout = LAYOUTS[name]
    signals = write_signals(
        tmp_path_factory.mktemp(name),
        layout,
        steady=steady,
        pictures_begin=pictures_begin,
        sound_begin=sound_begin,
    )
    return signals, layout


def test_windows_flash_and_click_on_time(written):
    signals, layout = written
    windows = list(iter_windows(signals.path, SPEC, sound_path=signals.sound_path))
    assert len(windows) == 2
    assert_in_step(windows, signals, layout)


def test_windows_drawn_from_clips_flash_and_click_on_time(written):
    signals, layout = written
    (clip,) = iter_windows(signals.path, LONG, sound_path=signals.sound_path)
    numbered = clip.video.copy()
    numbered[:, 0, 0, 0] = range(len(numbered))  # so that a window tells which it is
    draw = RandomWindow(size=WindowSize(num_frames=20, num_samples=12_800))
    rng, windows = np.random.default_rng(3), []
    for _ in range(16):
        drawn = draw.random_map({"video": numbered, "audio": clip.audio}, rng)
        start = clip.start_seconds + int(drawn["video"][0, 0, 0, 0]) / SPEC.fps
        windows.append(Window(start_seconds=start, video=drawn["video"], audio=drawn["audio"]))
    assert len({window.start_seconds for window in windows}) > 8
    assert_in_step(windows, signals, layout)


def write_long(folder: Path, layout: Layout, *, sound_end: float) -> Path:
    """37 s of random squares, and of a chirp with no two parts alike."""
    rng = np.random.default_rng(4)
    times = kept_times(layout, np.cumsum(rng.uniform(0.12, 0.24, 203)))
    squares = rng.integers(16, 240, (len(times), 4, 4, 3), np.uint8)
    rate = layout.sound_rate_hz
    seconds = np.arange(round(sound_end * rate)) / rate
    path, _ = write_media(
        folder / "long",
        layout,
        pictures=squares.repeat(8, axis=1).repeat(8, axis=2),
        frame_seconds=times,
        sound=0.3 * np.sin(2 * np.pi * (300 * seconds + 20 * seconds**2)),
    )
    return path


@pytest.mark.parametrize("name", ["mp4_h264", "mp4_hevc", "mkv", "webm"])
def test_sought_clip_is_the_one_decoded_from_the_start(tmp_path, monkeypatch, name):
    path = write_long(tmp_path, LAYOUTS[name], sound_end=37.0)
    part, steps = Part(start_seconds=30.9), []
    sought = list(iter_windows(path, SPEC, part, heartbeat=lambda: steps.append("sought")))
    monkeypatch.setattr(media, "_SHORTEST_SEEK_SECONDS", np.inf)
    walked = list(iter_windows(path, SPEC, part, heartbeat=lambda: steps.append("walked")))
    assert steps.count("sought") < 0.7 * steps.count("walked")
    assert len(sought) == len(walked) == 3
    for left, right in zip(sought, walked, strict=True):
        assert left.start_seconds == right.start_seconds
        np.testing.assert_array_equal(left.video, right.video)
        # Overlapping blocks of sound settle to within the last bit.
        assert np.abs(left.audio.astype(int) - right.audio).max() <= 1


@pytest.mark.parametrize("name", ["mov_pcm", "mkv"])
def test_nothing_is_sought_behind_the_end(tmp_path, name):
    path = write_long(tmp_path, LAYOUTS[name], sound_end=12.0)
    assert list(iter_windows(path, SPEC, Part(start_seconds=31.0))) == []  # the sound's end
    assert list(iter_windows(path, SPEC, Part(start_seconds=100.0))) == []
