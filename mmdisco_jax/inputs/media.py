# SPDX-License-Identifier: Apache-2.0
"""Media files to clips: pictures and sound cut by presentation time on the file's own clock.

Frames and samples are never counted: every frame and every packet of sound carries the time at
which it is presented, and both streams share that clock. So an encoder's delay, a late first frame
or a hole in the sound leaves the offset between picture and sound as the file has it. (Counting
drifts: a file with an 8 ms hole every 1.7 s of sound is off by 0.4 s after 90 s.)

Each stream is read from its own handle of the file, so a file that stores all pictures before all
sound needs no more memory than an interleaved one.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition

from mmdisco_jax.inputs.picture import SPATIAL_POLICIES, fit

# Containers round times to 1 ms or so; sound off by more than this has a hole or an overlap.
_JITTER_SECONDS = 0.004
_LONGEST_HOLE_SECONDS = 600.0
_LONGEST_OVERLAP_SECONDS = 1.0


class MediaError(ValueError):
    """A media file cannot be cut into clips; names the file, the reason and the remedy."""


class MissingAudioError(MediaError):
    """The file has pictures but no sound."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """What a clip is: length in seconds, frame rate in Hz, size in pixels, sample rate in Hz.

    `spatial`: "pad" fits the whole picture in, with black borders; "centre_crop" fills the frame
    and cuts what is outside. Both keep the aspect. Raises ValueError unless every number is
    positive and the clip is a whole number of frames and of samples.
    """

    clip_seconds: float
    fps: float
    height: int
    width: int
    sample_rate_hz: int
    spatial: str = "pad"

    def __post_init__(self) -> None:
        for name in ("clip_seconds", "fps", "height", "width", "sample_rate_hz"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be > 0.")
        for name, unit in (("fps", "frames"), ("sample_rate_hz", "samples")):
            count = self.clip_seconds * getattr(self, name)
            if round(count) < 1 or abs(count - round(count)) > 1e-6 * count:
                raise ValueError(
                    f"clip_seconds * {name} is {count}, but must be a whole number of {unit}; "
                    "change the clip's length."
                )
        if self.spatial not in SPATIAL_POLICIES:
            raise ValueError(f"spatial is {self.spatial!r}, but must be one of {SPATIAL_POLICIES}.")

    @property
    def num_frames(self) -> int:
        return round(self.clip_seconds * self.fps)

    @property
    def num_samples(self) -> int:
        return round(self.clip_seconds * self.sample_rate_hz)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
    """One clip: video uint8 [f h w 3], audio int16 [samples] mono, and where the file has it."""

    start_seconds: float
    video: np.ndarray
    audio: np.ndarray


def iter_windows(path: str | os.PathLike[str], spec: ClipSpec) -> Iterator[Window]:
    """All whole windows of a file, one after the other without overlap.

    The first starts at the first frame for which there is sound (a lack of up to half a frame
    interval counts as sound: it is filled with silence, here as at the end). Frame i of a window
    is the one shown at start + i / fps, to the nearest source frame; sample j is the sound at
    start + j / sample_rate_hz, to the nearest sample, the mean of all channels.

    Raises:
      MissingAudioError: no sound stream.
      MediaError: not a readable media file, or its times make no sense. Damage deep in a file
        raises once the windows before it have been yielded.
    """
    with _streams(path, spec) as (pictures, sound):
        start = pictures.first_at_or_after(sound.first_seconds - 0.5 / spec.fps)
        index = 0
        while start is not None:
            window = _cut(pictures, sound, start + index * spec.clip_seconds, spec)
            if window is None:
                return
            yield window
            index += 1


def decode_window(path: str | os.PathLike[str], start_seconds: float, spec: ClipSpec) -> Window:
    """The window that starts at `start_seconds` on the file's clock.

    Decodes from the beginning of the file, as seeking is not exact in every container; to read
    many windows use `iter_windows`. Raises as it does, and MediaError for a window that the file
    does not hold.
    """
    with _streams(path, spec) as (pictures, sound):
        slack = 0.5 / spec.fps
        window = None
        if start_seconds >= max(pictures.first_seconds, sound.first_seconds) - slack:
            window = _cut(pictures, sound, start_seconds, spec)
        if window is None:
            raise MediaError(
                f"{path}: no whole window of {spec.clip_seconds} s starts at {start_seconds} s; "
                "choose an earlier start or a shorter clip."
            )
        return window


def _cut(pictures: "_Pictures", sound: "_Sound", start: float, spec: ClipSpec) -> Window | None:
    """The window at `start`, or None where the file ends before it does."""
    video = np.empty((spec.num_frames, spec.height, spec.width, 3), np.uint8)
    for i in range(spec.num_frames):
        frame = pictures.shown_at(start + i / spec.fps)
        if frame is None:
            return None
        video[i] = fit(
            frame,
            height=spec.height,
            width=spec.width,
            policy=spec.spatial,
            pixel_aspect=pictures.pixel_aspect,
        )
    first = round(start * spec.sample_rate_hz)
    slack = round(0.5 / spec.fps * spec.sample_rate_hz)
    audio = sound.samples(first, spec.num_samples, slack=slack)
    return audio if audio is None else Window(start_seconds=start, video=video, audio=audio)


@contextlib.contextmanager
def _streams(
    path: str | os.PathLike[str], spec: ClipSpec
) -> Iterator[tuple["_Pictures", "_Sound"]]:
    """Both readers of a file, with every failure of the decoder as a MediaError."""
    try:
        with av.open(os.fspath(path)) as first, av.open(os.fspath(path)) as second:
            video = [s for s in first.streams.video if not s.disposition & Disposition.attached_pic]
            if not video:
                raise MediaError(f"{path}: has no pictures; leave it out of the folder.")
            if not second.streams.audio:
                raise MissingAudioError(
                    f"{path}: has no sound; leave it out or set on_missing_audio='skip'."
                )
            try:
                pictures = _Pictures(first, video[0], spec)
                sound = _Sound(second, second.streams.audio[0], spec)
                yield pictures, sound
            except _StreamError as error:
                raise MediaError(f"{path}: {error}; re-encode it or leave it out.") from error
    except FFmpegError as error:
        raise MediaError(
            f"{path}: cannot be decoded ({error.strerror}); repair it or leave it out."
        ) from error


class _StreamError(Exception):
    """A stream is damaged, or its presentation times make no sense."""


class _Pictures:
    """The frames of one stream by presentation time; times asked for must not go back."""

    def __init__(self, container: InputContainer, stream: av.VideoStream, spec: ClipSpec):
        stream.thread_type = "AUTO"
        self.pixel_aspect = float(stream.sample_aspect_ratio or 1)
        self._frames = container.decode(stream)
        rate = stream.average_rate or stream.guessed_rate
        # One source frame; but a slow or stuttering source holds its frame, and never looks
        # ahead by more than half of the wanted interval.
        self._interval = 1.0 / max(float(rate or 0), spec.fps)
        self._shown: av.VideoFrame | None = None
        self._next = self._decode()
        if self._next is None:
            raise _StreamError("not one frame can be decoded")
        self.first_seconds: float = _seconds(self._next)

    def first_at_or_after(self, seconds: float) -> float | None:
        """The time of the first frame at or after `seconds`, or None."""
        while self._next is not None and _seconds(self._next) < seconds:
            self._advance()
        return None if self._next is None else _seconds(self._next)

    def shown_at(self, seconds: float) -> av.VideoFrame | None:
        """The last frame presented by `seconds` plus half an interval; None after the end."""
        limit = seconds + 0.5 * self._interval - 1e-4  # a tie goes to the earlier frame
        while self._next is not None and _seconds(self._next) <= limit:
            self._advance()
        if self._next is None and self._shown is not None:
            duration = float((self._shown.duration or 0) * _base(self._shown)) or self._interval
            if seconds > _seconds(self._shown) + max(duration, self._interval) - 1e-4:
                return None
        return self._shown

    def _advance(self) -> None:
        self._shown, self._next = self._next, self._decode()

    def _decode(self) -> av.VideoFrame | None:
        frame = next(self._frames, None)
        if frame is not None and frame.is_corrupt:
            raise _StreamError(f"it has a damaged picture at {_seconds(frame):.3f} s")
        if (
            frame is not None
            and self._shown is not None
            and _seconds(frame) < _seconds(self._shown)
        ):
            raise _StreamError(f"its pictures go back in time at {_seconds(frame):.3f} s")
        return frame


class _Sound:
    """The samples of one stream by presentation time: sample n is the sound at n / rate seconds."""

    def __init__(self, container: InputContainer, stream: av.AudioStream, spec: ClipSpec):
        self._rate = spec.sample_rate_hz
        self._pieces = self._resampled(container.decode(stream))
        first = next(self._pieces, None)
        if first is None:
            raise _StreamError("not one sample of its sound can be decoded")
        self._start, self._samples = first  # what is held: samples from index _start on
        self.first_seconds = self._start / self._rate

    def samples(self, first: int, count: int, *, slack: int) -> np.ndarray | None:
        """Samples [first, first + count) as int16; up to `slack` lacking at an end are silence."""
        while self._start + len(self._samples) < first + count:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._append(*piece, keep_from=first)
        missing_before = max(self._start - first, 0)
        missing_after = max(first + count - self._start - len(self._samples), 0)
        if missing_before > slack or missing_after > slack:
            return None
        held = self._samples[max(first - self._start, 0) :][: count - missing_before]
        held = np.pad(held, (missing_before, missing_after))
        return np.rint(np.clip(held * 32768.0, -32768, 32767)).astype(np.int16)

    def _append(self, start: int, samples: np.ndarray, *, keep_from: int) -> None:
        end = self._start + len(self._samples)
        if start < end:
            samples = samples[end - start :]
        hole = np.zeros(max(start - end, 0), np.float32)
        drop = min(max(keep_from - self._start, 0), len(self._samples))
        self._samples = np.concatenate([self._samples[drop:], hole, samples])
        self._start += drop

    def _resampled(self, frames: Iterator[av.AudioFrame]) -> Iterator[tuple[int, np.ndarray]]:
        """(index of the first sample, mono samples) of each piece, in order.

        A run of frames without a hole goes through one resampler, whose output is in step with
        its input (its filter's delay is taken out); a hole or a new format starts another.
        """
        resampler, form, origin, heard, written = None, None, 0.0, 0, 0
        for frame in frames:
            start = _seconds(frame)
            if resampler is not None and form is not None:
                late = start - (origin + heard / form[0])
                if late > _LONGEST_HOLE_SECONDS or late < -_LONGEST_OVERLAP_SECONDS:
                    raise _StreamError(f"its sound jumps by {late:.3f} s at {start:.3f} s")
                if abs(late) > _JITTER_SECONDS or form != _format(frame):
                    yield round(origin * self._rate) + written, _mono(resampler.resample(None))
                    resampler = None
            if resampler is None:
                form, origin, heard, written = _format(frame), start, 0, 0
                resampler = av.AudioResampler(format="fltp", layout=form[1], rate=self._rate)
            heard += frame.samples
            piece = _mono(resampler.resample(frame))
            yield round(origin * self._rate) + written, piece
            written += len(piece)
        if resampler is not None:
            yield round(origin * self._rate) + written, _mono(resampler.resample(None))


def _format(frame: av.AudioFrame) -> tuple[int, str]:
    return frame.sample_rate, frame.layout.name


def _mono(frames: list[av.AudioFrame]) -> np.ndarray:
    """The mean of the channels: unlike a sum of powers it can never clip."""
    pieces = [frame.to_ndarray().mean(axis=0) for frame in frames if frame is not None]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


def _base(frame: av.VideoFrame | av.AudioFrame) -> Fraction:
    if frame.time_base is None:
        raise _StreamError("it has a frame without a presentation time")
    return frame.time_base


def _seconds(frame: av.VideoFrame | av.AudioFrame) -> float:
    if frame.pts is None:
        raise _StreamError("it has a frame without a presentation time")
    return float(frame.pts * _base(frame))
