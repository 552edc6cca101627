# SPDX-License-Identifier: Apache-2.0
"""Clips from media files against the closed form of what the files hold at each time."""

import dataclasses
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from mmdisco_jax.media.cutting import (
    ClipSpec,
    MediaError,
    MissingAudioError,
    MissingVideoError,
    Part,
    iter_windows,
)
from mmdisco_jax.media.streams import Pictures, StreamError
from tests.support.clock_media import seconds_of, tone, write_clock
from tests.support.transcode import LAYOUTS, write_media

SPEC = ClipSpec(clip_seconds=0.5, fps=10, height=16, width=16, sample_rate_hz=16_000)
STEADY = [i / 30 for i in range(60)]


def window_at(path, start_seconds: float, spec: ClipSpec):
    """The window that starts at `start_seconds`, which is the time of a frame."""
    window = next(iter_windows(path, spec, Part(start_seconds=start_seconds)))
    assert window.start_seconds == pytest.approx(start_seconds, abs=1e-3)
    return window


def times_of(window) -> np.ndarray:
    return seconds_of(window.video.mean(axis=(1, 2, 3)))


def wanted_times(window, spec=SPEC) -> np.ndarray:
    return window.start_seconds + np.arange(spec.num_frames) / spec.fps


def tone_error(window, spec=SPEC, keep=slice(None)) -> float:
    times = window.start_seconds + np.arange(spec.num_samples) / spec.sample_rate_hz
    return float(np.abs(window.audio / 32768.0 - tone(times))[keep].max())


@pytest.mark.parametrize(
    ("video_start", "sound_start", "first_start"),
    [(0.0, 0.0, 0.0), (0.0, 0.337, 0.3), (0.4, 0.0, 0.4), (0.069, 0.0, 0.069), (0.2, 0.04, 0.2)],
)
def test_late_streams_keep_their_offset(tmp_path, video_start, sound_start, first_start):
    path = write_clock(
        tmp_path / "late.mkv",
        frame_seconds=[video_start + t for t in STEADY],
        sound_runs=[(sound_start, 2.5)],
    )
    windows = list(iter_windows(path, SPEC))
    assert windows[0].start_seconds == pytest.approx(first_start, abs=1.1e-3)
    assert len(windows) == int((video_start + 2.0 - first_start) / 0.5 + 1e-6)
    for k, window in enumerate(windows):
        assert window.start_seconds == pytest.approx(windows[0].start_seconds + 0.5 * k)
        # Half a source frame, half a grey level (6 ms) and Matroska's millisecond.
        assert np.abs(times_of(window) - wanted_times(window)).max() < 1 / 60 + 0.0075
        # At 220 Hz one sample at 16 kHz is an error of 0.04: this holds the clock to a third of
        # that. The first window may begin with silence where the sound is a little late.
        keep = slice(1200, None) if k == 0 else slice(None)
        assert tone_error(window, keep=keep) < 0.043


def test_hole_in_the_sound_is_silence_and_shifts_nothing(tmp_path):
    runs = [(0.0, 0.6), (0.68, 2.0)]
    path = write_clock(tmp_path / "hole.mkv", frame_seconds=STEADY, sound_runs=runs)
    windows = list(iter_windows(path, SPEC))
    assert len(windows) == 4
    hole = windows[1].audio[1650:2820]  # 0.603 .. 0.676 s, clear of the filter's ringing
    assert np.abs(hole).max() < 40
    assert tone_error(windows[1], keep=slice(2960, None)) < 0.03
    assert tone_error(windows[3]) < 0.03  # counting samples would be 1280 samples off here


def test_frozen_picture_is_held_and_not_looked_ahead(tmp_path):
    times = [0.0, 0.1, 0.2, 0.9, 1.0]
    path = write_clock(tmp_path / "vfr.mkv", frame_seconds=times, sound_runs=[(0.0, 1.2)])
    window = window_at(path, 0.0, SPEC)
    assert times_of(window) == pytest.approx([0.0, 0.1, 0.2, 0.2, 0.2], abs=0.0075)
    second = list(iter_windows(path, SPEC))[1]
    assert times_of(second) == pytest.approx([0.2, 0.2, 0.2, 0.2, 0.9], abs=0.0075)


def test_slow_source_repeats_frames_on_its_own_clock(tmp_path):
    path = write_clock(
        tmp_path / "slow.mkv",
        frame_seconds=[i / 5 for i in range(10)],
        sound_runs=[(0.0, 2.0)],
        nominal_fps=5,
    )
    spec = ClipSpec(clip_seconds=1.0, fps=20, height=16, width=16, sample_rate_hz=16_000)
    window = window_at(path, 0.0, spec)
    late = wanted_times(window, spec) - times_of(window)
    assert late.min() > -0.0325  # half a wanted interval ahead and half a grey level
    assert late.max() < 0.2075


def test_sound_is_the_mean_of_the_channels(tmp_path):
    path = write_clock(
        tmp_path / "stereo.mkv",
        frame_seconds=STEADY,
        sound_runs=[(0.0, 2.0)],
        channel_gains=(1.0, 0.5),
    )
    window = window_at(path, 0.5, SPEC)
    times = 0.5 + np.arange(SPEC.num_samples) / SPEC.sample_rate_hz
    assert np.abs(window.audio / 32768.0 - 0.75 * tone(times)).max() < 0.01


@pytest.mark.parametrize(
    ("channels", "gains", "wanted"),
    [
        ("left", (1.0, 0.5), 1.0),
        ("stereo", (1.0, 0.5), [1.0, 0.5]),
        ("stereo", (1.0,), [1.0, 1.0]),
    ],
)
def test_channels_are_as_wanted(tmp_path, channels, gains, wanted):
    path = write_clock(
        tmp_path / "gains.mkv",
        frame_seconds=STEADY,
        sound_runs=[(0.0, 2.0)],
        channel_gains=gains,
    )
    spec = dataclasses.replace(SPEC, channels=channels)
    window = window_at(path, 0.5, spec)
    assert window.audio.shape == spec.audio_shape
    times = 0.5 + np.arange(SPEC.num_samples) / SPEC.sample_rate_hz
    truth = np.multiply.outer(tone(times), wanted)
    assert np.abs(window.audio / 32768.0 - truth).max() < 0.01


@pytest.mark.parametrize(("channels", "wanted"), [("mono", 0.2), ("left", 1.0)])
def test_sound_of_eight_channels(tmp_path, channels, wanted):
    pictures = write_clock(tmp_path / "a.mkv", frame_seconds=STEADY, sound_runs=[(0.0, 2.0)])
    gains = np.array([1.0, 0.6, 0, 0, 0, 0, 0, 0])
    wave = np.multiply.outer(tone(np.arange(44_100) / 44_100), gains)
    soundfile.write(tmp_path / "a.wav", wave, 44_100)
    spec = dataclasses.replace(SPEC, channels=channels)
    window = next(iter_windows(pictures, spec, sound_path=tmp_path / "a.wav"))
    times = np.arange(SPEC.num_samples) / SPEC.sample_rate_hz
    assert np.abs(window.audio / 32768.0 - wanted * tone(times))[100:].max() < 0.01


@pytest.mark.parametrize("policy", ["pad", "centre_crop"])
@pytest.mark.parametrize("size", [(16, 32), (32, 16), (32, 32)])
def test_aspect_is_kept(tmp_path, policy, size):
    path = write_clock(
        tmp_path / "wide.mkv", frame_seconds=STEADY, sound_runs=[(0.0, 1.0)], size=size
    )
    spec = ClipSpec(
        clip_seconds=0.5, fps=10, height=16, width=16, sample_rate_hz=16_000, spatial=policy
    )
    frame = window_at(path, 0.1, spec).video[0]
    rows, columns = (frame.max(axis=(1, 2)) > 20).sum(), (frame.max(axis=(0, 2)) > 20).sum()
    whole = {(16, 32): (8, 16), (32, 16): (16, 8), (32, 32): (16, 16)}[size]
    assert (rows, columns) == (whole if policy == "pad" else (16, 16))


def test_resize_stretches_the_whole_picture(tmp_path):
    pictures = np.zeros((30, 32, 64, 3), np.uint8)
    pictures[:, :, :16] = 255  # its left quarter
    path, _ = write_media(
        tmp_path / "quarter",
        LAYOUTS["mkv"],
        pictures=pictures,
        frame_seconds=STEADY[:30],
        sound=np.zeros(44_100),
    )
    frame = window_at(path, 0.0, dataclasses.replace(SPEC, spatial="resize")).video[0]
    lit = frame.min(axis=2) > 125
    assert lit[:, :4].all() and not lit[:, 4:].any()


def test_silence_stands_for_missing_sound(tmp_path):
    path = write_clock(tmp_path / "a.mkv", frame_seconds=STEADY, sound_runs=[], channel_gains=())
    windows = list(iter_windows(path, SPEC, Part(silence=True, start_seconds=0.4)))
    assert [w.start_seconds for w in windows] == pytest.approx([0.4, 0.9, 1.4])
    for window in windows:
        assert window.audio.shape == SPEC.audio_shape and not window.audio.any()
        assert np.abs(times_of(window) - wanted_times(window)).max() < 0.0242


def test_black_stands_for_missing_pictures(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(np.arange(32_000) / 16_000), 16_000)
    with pytest.raises(MissingVideoError, match=r"a.wav.*no moving pictures"):
        list(iter_windows(path, SPEC))
    windows = list(iter_windows(path, SPEC, Part(black=True)))
    assert [w.start_seconds for w in windows] == [0.0, 0.5, 1.0, 1.5]
    for window in windows:
        assert window.video.shape == SPEC.video_shape and not window.video.any()
        assert tone_error(window) < 1e-3


def test_short_file_holds_its_last_picture_and_ends_in_silence(tmp_path):
    path = write_clock(tmp_path / "a.mkv", frame_seconds=STEADY[:8], sound_runs=[(0.0, 0.25)])
    assert list(iter_windows(path, SPEC)) == []
    (window,) = iter_windows(path, SPEC, Part(hold=True))
    assert times_of(window) == pytest.approx([0, 0.1, 0.2, 7 / 30, 7 / 30], abs=0.0075)
    assert tone_error(window, keep=slice(3900)) < 0.03
    assert not window.audio[4100:].any()


def test_a_file_that_is_long_enough_is_not_held(tmp_path):
    path = write_clock(tmp_path / "a.mkv", frame_seconds=STEADY, sound_runs=[(0.0, 1.7)])
    assert len(list(iter_windows(path, SPEC, Part(hold=True)))) == 3
    windows = list(iter_windows(path, SPEC, Part(max_clips=2)))
    assert [window.start_seconds for window in windows] == [0.0, 0.5]


def test_absurd_size_is_refused_by_name(tmp_path):
    path = write_clock(
        tmp_path / "a.mkv", frame_seconds=STEADY[:2], sound_runs=[(0.0, 1.0)], size=(256, 512)
    )
    whole = path.read_bytes()
    for name, was, claim in ((b"\xb0", 512, 20_000), (b"\xba", 256, 10_000)):  # width, height
        field = name + b"\x82" + was.to_bytes(2, "big")
        assert whole.count(field) == 1
        whole = whole.replace(field, field[:2] + claim.to_bytes(2, "big"))
    path.write_bytes(whole)
    with pytest.raises(MediaError, match=r"a.mkv: the size.* beyond 67108864 pixels"):
        list(iter_windows(path, SPEC))


@pytest.mark.parametrize(
    ("times", "message"),
    [([0.0, 0.2, 0.1], "go back in time at 0.100"), ([0.0, 0.1, 700.0], "jump to 700.000")],
)
def test_pictures_whose_times_make_no_sense_are_refused(tmp_path, times, message):
    def frame(seconds: float) -> av.VideoFrame:
        made = av.VideoFrame(16, 16, "rgb24")
        made.pts, made.time_base = round(1000 * seconds), Fraction(1, 1000)
        return made

    path = write_clock(tmp_path / "a.mkv", frame_seconds=STEADY, sound_runs=[(0.0, 1.0)])
    with av.open(str(path)) as container:
        decoder: Any = SimpleNamespace(decode=lambda stream: map(frame, times))
        pictures = Pictures(decoder, container.streams.video[0], fps=10)
        with pytest.raises(StreamError, match=message):
            pictures.first_at_or_after(1000.0)


def test_sound_that_stops_for_more_than_a_minute_is_refused(tmp_path):
    runs = [(0.0, 1.0), (62.0, 63.0)]
    path = write_clock(tmp_path / "a.mkv", frame_seconds=[0, 30, 62, 63], sound_runs=runs)
    with pytest.raises(MediaError, match=r"a.mkv: its sound jumps by 61.*at 62"):
        list(iter_windows(path, SPEC))


def test_bare_pictures_under_another_name_are_no_film(tmp_path):
    # As FFmpeg guesses when the header of an AVI file is lost.
    for name in ("bare.m4v", "film.avi"):
        with av.open(str(tmp_path / name), "w", format="m4v") as container:
            stream: Any = container.add_stream("mpeg4", rate=10)
            stream.width = stream.height = 64
            for _ in range(20):
                container.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
            container.mux(stream.encode(None))
    assert len(list(iter_windows(tmp_path / "bare.m4v", SPEC, Part(silence=True)))) > 0
    with pytest.raises(MediaError, match=r"film.avi: it has no header .* like m4v"):
        list(iter_windows(tmp_path / "film.avi", SPEC, Part(silence=True)))


def test_a_part_begins_with_the_window_that_the_whole_file_has_there(tmp_path):
    path = write_clock(tmp_path / "a.mkv", frame_seconds=STEADY, sound_runs=[(0.0, 2.0)])
    for window in iter_windows(path, SPEC):
        again = window_at(path, window.start_seconds, SPEC)
        np.testing.assert_array_equal(again.video, window.video)
        np.testing.assert_array_equal(again.audio, window.audio)
    assert list(iter_windows(path, SPEC, Part(start_seconds=1.9))) == []


def test_unusable_files_say_why(tmp_path):
    silent = write_clock(
        tmp_path / "silent.mkv", frame_seconds=STEADY, sound_runs=[], channel_gains=()
    )
    with pytest.raises(MissingAudioError, match=r"silent.mkv.*no sound"):
        list(iter_windows(silent, SPEC))
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    with pytest.raises(MediaError, match=r"text.mp4.*cannot be decoded"):
        list(iter_windows(text, SPEC))
    with pytest.raises(MediaError, match=r"gone.mp4.*cannot be decoded"):
        list(iter_windows(tmp_path / "gone.mp4", SPEC))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fps": 0}, "fps is 0"),
        ({"clip_seconds": 0.55}, "whole number of frames"),
        ({"spatial": "stretch"}, "stretch"),
    ],
)
def test_spec_is_checked(change, message):
    good = {"clip_seconds": 0.5, "fps": 10, "height": 16, "width": 16, "sample_rate_hz": 16_000}
    with pytest.raises(ValueError, match=message):
        ClipSpec(**{**good, **change})
