# SPDX-License-Identifier: Apache-2.0
"""Media files to clips: pictures and sound cut on one clock, the file's own.

Each stream is read from its own handle of the file, so a file that stores all pictures before all
sound needs no more memory than an interleaved one.
"""

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition

from mmdisco_jax.media.container import open_media
from mmdisco_jax.media.picture import SPATIAL_POLICIES, fit
from mmdisco_jax.media.streams import CHANNEL_POLICIES, Pictures, Sound, StreamError

# Containers whose index finds a key frame before any time, by exact times. In others a seek may
# land after it, or guess the times from there on.
_SEEKABLE = ("mov", "mp4", "matroska", "webm")
_SEEK_MARGIN_SECONDS = 4.0  # codecs with overlapping blocks of sound are exact only after a few
_SHORTEST_SEEK_SECONDS = 30.0


class MediaError(ValueError):
    """A media file cannot be cut into clips; names the file, the reason and the remedy."""


class MissingAudioError(MediaError):
    """The file has pictures but no sound."""


class MissingVideoError(MediaError):
    """The file has no moving pictures."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """What a clip is: length in seconds, frame rate in Hz, size in pixels, sample rate in Hz.

    `spatial`: "pad" fits the whole picture in, with black borders; "centre_crop" fills the frame
    and cuts what is outside; both keep the aspect; "resize" stretches the picture to the frame.
    `channels`: "mono" (the mean of all), "left" (the first) or "stereo". Raises ValueError unless
    every number is positive and the clip is a whole number of frames and of samples.
    """

    clip_seconds: float
    fps: float
    height: int
    width: int
    sample_rate_hz: int
    spatial: str = "pad"
    channels: str = "mono"

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
        for name, known in (("spatial", SPATIAL_POLICIES), ("channels", CHANNEL_POLICIES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}, but must be one of {known}.")

    @property
    def num_frames(self) -> int:
        return round(self.clip_seconds * self.fps)

    @property
    def num_samples(self) -> int:
        return round(self.clip_seconds * self.sample_rate_hz)

    @property
    def video_shape(self) -> tuple[int, ...]:
        return (self.num_frames, self.height, self.width, 3)

    @property
    def audio_shape(self) -> tuple[int, ...]:
        return (self.num_samples, 2) if self.channels == "stereo" else (self.num_samples,)

    @property
    def num_bytes(self) -> int:
        return math.prod(self.video_shape) + 2 * math.prod(self.audio_shape)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """Which part of a file becomes clips, and what stands for what it lacks.

    Attributes:
      start_seconds: where the part begins, counted from the file's beginning as players count.
      max_clips: at most so many clips, one after the other; None for all there are.
      silence: a file without sound has silence.
      black: a file without pictures has black ones.
      hold: a file shorter than one clip holds its last picture, and ends in silence.
    """

    start_seconds: float = 0.0
    max_clips: int | None = None
    silence: bool = False
    black: bool = False
    hold: bool = False

    def __post_init__(self) -> None:
        if not (np.isfinite(self.start_seconds) and self.start_seconds >= 0):
            raise ValueError(f"start_seconds is {self.start_seconds}, but must be >= 0.")
        if self.max_clips is not None and self.max_clips < 1:
            raise ValueError(f"max_clips is {self.max_clips}, but must be >= 1, or None for all.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
    """One clip: video uint8 [f h w 3], audio int16 [samples] or [samples 2], and its start.

    `start_seconds` is on the file's own clock, on which a file may begin at any time.
    """

    start_seconds: float
    video: np.ndarray
    audio: np.ndarray


def iter_windows(
    path: str | os.PathLike[str],
    spec: ClipSpec,
    part: Part | None = None,
    *,
    sound_path: str | os.PathLike[str] | None = None,
    alive: Callable[[], None] = lambda: None,
    threads: int = 0,
) -> Iterator[Window]:
    """All whole windows of a file (or of its `part`), one after the other without overlap.

    The first starts at the first frame for which there is sound (a lack of up to half a frame
    interval counts as sound: it is filled with silence, here as at the end). Frame i of a window
    is the one shown at start + i / fps, to the nearest source frame; sample j is the sound at
    start + j / sample_rate_hz, to the nearest sample.

    Args:
      path: any file that FFmpeg reads.
      spec: the clips.
      part: by default the whole file, lacking nothing.
      sound_path: another file with the sound; the two begin together.
      alive: called whenever the decoder gives something back.
      threads: of the video decoder; 0 for as many as there are cores.

    Raises:
      MissingAudioError: no sound stream.
      MissingVideoError: no moving pictures.
      MediaError: not a readable media file, or its times make no sense. Damage deep in a file
        raises once the windows before it have been yielded.
    """
    part = part or Part()
    with _streams(path, sound_path, spec, part, alive, threads) as (pictures, sound, begin):
        start = _first_start(pictures, sound, spec, part, begin)
        index = 0
        while start is not None and (part.max_clips is None or index < part.max_clips):
            window = _cut(pictures, sound, start + index * spec.clip_seconds, spec, hold=False)
            if window is None:
                break
            yield window
            index += 1
        if start is None or index or not part.hold:
            return
    # Shorter than one clip: read it once more, and hold what it ends with.
    with _streams(path, sound_path, spec, part, alive, threads) as (pictures, sound, begin):
        _first_start(pictures, sound, spec, part, begin)
        window = _cut(pictures, sound, start, spec, hold=True)
        if window is not None:
            yield window


def decode_window(path: str | os.PathLike[str], start_seconds: float, spec: ClipSpec) -> Window:
    """The window that starts at `start_seconds` on the file's clock.

    Decodes from the beginning of the file; to read many windows use `iter_windows`. Raises as it
    does, and MediaError for a window that the file does not hold.
    """
    with _streams(path, None, spec, Part(), lambda: None, 0) as (pictures, sound, _):
        slack = 0.5 / spec.fps
        window = None
        if start_seconds >= max(pictures.first_seconds, sound.first_seconds) - slack:
            window = _cut(pictures, sound, start_seconds, spec, hold=False)
        if window is None:
            raise MediaError(
                f"{path}: no whole window of {spec.clip_seconds} s starts at {start_seconds} s; "
                "choose an earlier start or a shorter clip."
            )
        return window


def picture_stream(container: InputContainer) -> av.VideoStream | None:
    """The first stream of moving pictures: not the cover of an album."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    return None


def begin_seconds(container: InputContainer) -> float:
    """The time on the file's clock that players call 0."""
    return (container.start_time or 0) / av.time_base


def _first_start(
    pictures: Any, sound: Any, spec: ClipSpec, part: Part, begin: float
) -> float | None:
    """The time of the first frame of the part for which there is sound; None without one."""
    earliest = sound.first_seconds - 0.5 / spec.fps
    if part.start_seconds:
        # Containers round times to a millisecond.
        earliest = max(earliest, begin + part.start_seconds - 2e-3)
    if earliest == np.inf:
        return None  # the sound ends before the place sought
    return pictures.first_at_or_after(earliest)


def _cut(pictures: Any, sound: Any, start: float, spec: ClipSpec, *, hold: bool) -> Window | None:
    """The window at `start`, or None where the file ends before it does."""
    video = np.zeros(spec.video_shape, np.uint8)
    for i in range(spec.num_frames):
        frame = pictures.shown_at(start + i / spec.fps, hold=hold)
        if frame is None:
            return None
        if not isinstance(frame, av.VideoFrame):
            continue  # black
        video[i] = fit(
            frame,
            height=spec.height,
            width=spec.width,
            policy=spec.spatial,
            pixel_aspect=pictures.pixel_aspect,
            reformatter=pictures.reformatter,
        )
    first = round(start * spec.sample_rate_hz)
    slack = spec.num_samples if hold else round(0.5 / spec.fps * spec.sample_rate_hz)
    audio = sound.samples(first, spec.num_samples, slack=slack)
    return audio if audio is None else Window(start_seconds=start, video=video, audio=audio)


@contextlib.contextmanager
def _streams(
    path: str | os.PathLike[str],
    sound_path: str | os.PathLike[str] | None,
    spec: ClipSpec,
    part: Part,
    alive: Callable[[], None],
    threads: int,
) -> Iterator[tuple[Any, Any, float]]:
    """Readers of pictures and sound, and the file's beginning on its clock.

    Every failure of the decoder becomes a MediaError.
    """
    path = os.fspath(path)
    try:
        with open_media(path) as first, open_media(sound_path or path) as second:
            stream, heard = picture_stream(first), list(second.streams.audio)
            if stream is None and not (part.black and heard):
                raise MissingVideoError(
                    f"{path}: has no moving pictures; leave it out or set on_missing_video='skip'."
                )
            if not heard and not part.silence:
                raise MissingAudioError(
                    f"{path}: has no sound; leave it out or set on_missing_audio='skip'."
                )
            begin = begin_seconds(first)
            _seek(first, begin, part)
            sought = not sound_path and _seek(second, begin, part)
            shift = begin - begin_seconds(second) if sound_path else 0.0
            sound = _sound(second, spec, shift, sought, alive)
            pictures = _pictures(first, stream, sound, spec, alive, threads)
            yield pictures, sound, begin
    except StreamError as error:
        raise MediaError(f"{path}: {error}; re-encode it or leave it out.") from error
    except (FFmpegError, MemoryError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise MediaError(
            f"{path}: cannot be decoded ({reason}); repair it or leave it out."
        ) from error


def _seek(container: InputContainer, begin: float, part: Part) -> bool:
    """Goes to a key frame well before the part, where that pays and is exact; whether it did."""
    names = container.format.name.split(",")
    if part.start_seconds < _SHORTEST_SEEK_SECONDS or not set(names) & set(_SEEKABLE):
        return False
    seconds = begin + part.start_seconds - _SEEK_MARGIN_SECONDS
    container.seek(round(seconds * av.time_base), backward=True)
    return True


def _pictures(first: Any, stream: Any, sound: Any, spec: ClipSpec, alive: Any, threads: int) -> Any:
    if stream is None:
        return _Black(sound.first_seconds)
    stream.thread_type = "AUTO"
    stream.thread_count = threads
    return Pictures(first, stream, fps=spec.fps, alive=alive)


def _sound(second: Any, spec: ClipSpec, shift: float, sought: bool, alive: Any) -> Any:
    if not second.streams.audio:
        return _Silence(spec)
    return Sound(
        second,
        second.streams.audio[0],
        sample_rate_hz=spec.sample_rate_hz,
        channels=spec.channels,
        shift_seconds=shift,
        sought=sought,
        alive=alive,
    )


class _Black:
    """Pictures of a file that has only sound: they last as long as it does."""

    pixel_aspect = 1.0

    def __init__(self, first_seconds: float):
        self.first_seconds = first_seconds

    def first_at_or_after(self, seconds: float) -> float:
        return max(self.first_seconds, seconds)

    def shown_at(self, seconds: float, *, hold: bool = False) -> bool:
        del seconds, hold
        return True


class _Silence:
    """Sound of a file that has only pictures."""

    first_seconds = -np.inf

    def __init__(self, spec: ClipSpec):
        self._shape = spec.audio_shape

    def samples(self, first: int, count: int, *, slack: int) -> np.ndarray:
        del first, slack
        return np.zeros((count, *self._shape[1:]), np.int16)
