# SPDX-License-Identifier: Apache-2.0
"""Cutting of media files into clips of equal length, pictures and sound on the file's own clock.

Each stream is read through its own handle of the file, so a file that stores all pictures before
all sound needs no more memory than an interleaved one.
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

from mmdisco_jax.checks import require_positive
from mmdisco_jax.media.container import begin_seconds, open_media, picture_stream
from mmdisco_jax.media.picture import SPATIAL_POLICIES, fit
from mmdisco_jax.media.streams import CHANNEL_POLICIES, Pictures, Sound, StreamError

# In these containers an index finds a key frame before any time, and times stay exact. In others a
# seek may land too late, or the times after it are guesses.
_SEEKABLE = ("mov", "mp4", "matroska", "webm")
_SEEK_MARGIN_SECONDS = 4.0  # sound codecs whose blocks overlap are exact only after a few blocks
_SHORTEST_SEEK_SECONDS = 30.0


class MediaError(ValueError):
    """Raised when a media file cannot be cut; names the file, the reason and the remedy."""


class MissingAudioError(MediaError):
    """Raised when a file has pictures but no sound."""


class MissingVideoError(MediaError):
    """Raised when a file has no moving pictures."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """Specification of a clip: length, rates, picture size and channels.

    Attributes:
      clip_seconds: length; a whole number of frames and of samples.
      fps: frames a second.
      height, width: pixels.
      sample_rate_hz: samples of sound a second.
      spatial: "pad" fits the whole picture in and adds black borders; "centre_crop" fills the frame
        and cuts what is outside; both keep the aspect ratio. "resize" stretches the picture.
      channels: "mono" (the mean of all channels), "left" (the first one) or "stereo".

    Raises:
      ValueError: a number is not positive, the clip is not a whole number of frames and samples,
        or a choice is unknown.
    """

    clip_seconds: float
    fps: float
    height: int
    width: int
    sample_rate_hz: int
    spatial: str = "pad"
    channels: str = "mono"

    def __post_init__(self) -> None:
        require_positive(
            clip_seconds=self.clip_seconds,
            fps=self.fps,
            height=self.height,
            width=self.width,
            sample_rate_hz=self.sample_rate_hz,
        )
        rates = {"fps": (self.fps, "frames"), "sample_rate_hz": (self.sample_rate_hz, "samples")}
        for name, (rate, unit) in rates.items():
            count = self.clip_seconds * rate
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
        """Frames of a clip."""
        return round(self.clip_seconds * self.fps)

    @property
    def num_samples(self) -> int:
        """Samples of a clip, for each channel."""
        return round(self.clip_seconds * self.sample_rate_hz)

    @property
    def video_shape(self) -> tuple[int, ...]:
        """Shape of the pictures, (f, h, w, 3)."""
        return (self.num_frames, self.height, self.width, 3)

    @property
    def audio_shape(self) -> tuple[int, ...]:
        """Shape of the sound, (samples,) or (samples, 2)."""
        return (self.num_samples, 2) if self.channels == "stereo" else (self.num_samples,)

    @property
    def num_bytes(self) -> int:
        """Bytes of a clip before compression."""
        return math.prod(self.video_shape) + 2 * math.prod(self.audio_shape)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """Part of a file to cut, and substitutes for the streams that the file lacks.

    Attributes:
      start_seconds: beginning of the part, counted from the file's beginning as players count.
      max_clips: upper limit on the number of consecutive clips; None for no limit.
      silence: use silence for a file without sound.
      black: use black pictures for a file without pictures.
      hold: make one clip of a shorter file by holding its last picture and adding silence.
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
    """One clip and its start.

    Attributes:
      start_seconds: on the file's own clock, on which a file may begin at any time.
      video: uint8 [f h w 3].
      audio: int16 [samples] or [samples 2].
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
    heartbeat: Callable[[], None] = lambda: None,
    threads: int = 0,
) -> Iterator[Window]:
    """Yields the whole windows of a file, or of a part of it, in order and without overlap.

    The first window starts at the first frame that has sound. Up to half a frame interval of sound
    may lack at either end; it is filled with silence. Frame i of a window is the source frame
    nearest to start + i / fps, and sample j is the sound at start + j / sample_rate_hz, to the
    nearest sample.

    Args:
      path: any file that FFmpeg reads.
      spec: the clips to cut.
      part: by default the whole file, without substitutes.
      sound_path: another file that holds the sound; both begin together.
      heartbeat: called whenever the decoder returns something.
      threads: number of threads of the video decoder; 0 for one a core.

    Raises:
      MissingAudioError: the file has no sound stream.
      MissingVideoError: the file has no moving pictures.
      MediaError: the file is not readable media, or its times make no sense. Damage deep inside a
        file raises after the windows before it have been yielded.
    """
    part = part or Part()
    with _streams(path, sound_path, spec, part, heartbeat, threads) as (pictures, sound, begin):
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
    # The file is shorter than one clip: read it again and hold its last picture.
    with _streams(path, sound_path, spec, part, heartbeat, threads) as (pictures, sound, begin):
        _first_start(pictures, sound, spec, part, begin)
        window = _cut(pictures, sound, start, spec, hold=True)
        if window is not None:
            yield window


def _first_start(
    pictures: Any, sound: Any, spec: ClipSpec, part: Part, begin: float
) -> float | None:
    """The time of the first frame of the part that has sound, or None."""
    earliest = sound.first_seconds - 0.5 / spec.fps
    if part.start_seconds:
        # Containers round times to a millisecond.
        earliest = max(earliest, begin + part.start_seconds - 2e-3)
    if earliest == np.inf:
        return None  # the sound ends before the part begins
    return pictures.first_at_or_after(earliest)


def _cut(pictures: Any, sound: Any, start: float, spec: ClipSpec, *, hold: bool) -> Window | None:
    """The window that starts at `start`, or None if the file ends before the window does."""
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
    heartbeat: Callable[[], None],
    threads: int,
) -> Iterator[tuple[Any, Any, float]]:
    """Opens the readers of pictures and sound; yields them and the file's beginning in seconds.

    Converts every failure of the decoder into a MediaError.
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
            after_seek = not sound_path and _seek(second, begin, part)
            shift = begin - begin_seconds(second) if sound_path else 0.0
            sound = _sound(second, spec, shift, after_seek, heartbeat)
            pictures = _pictures(first, stream, sound, spec, heartbeat, threads)
            yield pictures, sound, begin
    except StreamError as error:
        raise MediaError(f"{path}: {error}; re-encode it or leave it out.") from error
    except (FFmpegError, MemoryError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise MediaError(
            f"{path}: cannot be decoded ({reason}); repair it or leave it out."
        ) from error


def _seek(container: InputContainer, begin: float, part: Part) -> bool:
    """Seeks to a key frame well before the part if that is exact and saves time.

    Returns whether it did.
    """
    names = container.format.name.split(",")
    if part.start_seconds < _SHORTEST_SEEK_SECONDS or not set(names) & set(_SEEKABLE):
        return False
    seconds = begin + part.start_seconds - _SEEK_MARGIN_SECONDS
    container.seek(round(seconds * av.time_base), backward=True)
    return True


def _pictures(
    first: Any, stream: Any, sound: Any, spec: ClipSpec, heartbeat: Any, threads: int
) -> Any:
    if stream is None:
        return _Black(sound.first_seconds)
    stream.thread_type = "AUTO"
    stream.thread_count = threads
    return Pictures(first, stream, fps=spec.fps, heartbeat=heartbeat)


def _sound(second: Any, spec: ClipSpec, shift: float, after_seek: bool, heartbeat: Any) -> Any:
    if not second.streams.audio:
        return _Silence(spec)
    return Sound(
        second,
        second.streams.audio[0],
        sample_rate_hz=spec.sample_rate_hz,
        channels=spec.channels,
        shift_seconds=shift,
        after_seek=after_seek,
        heartbeat=heartbeat,
    )


class _Black:
    """Black pictures for a file that has only sound; they last as long as the sound."""

    pixel_aspect = 1.0

    def __init__(self, first_seconds: float):
        self.first_seconds = first_seconds

    def first_at_or_after(self, seconds: float) -> float:
        return max(self.first_seconds, seconds)

    def shown_at(self, seconds: float, *, hold: bool = False) -> bool:
        del seconds, hold
        return True


class _Silence:
    """Silence for a file that has only pictures."""

    first_seconds = -np.inf

    def __init__(self, spec: ClipSpec):
        self._shape = spec.audio_shape

    def samples(self, first: int, count: int, *, slack: int) -> np.ndarray:
        del first, slack
        return np.zeros((count, *self._shape[1:]), np.int16)
