# SPDX-License-Identifier: Apache-2.0
"""The pictures and the sound of a file by presentation time, each read once from front to back.

Frames and samples are never counted: every frame and every packet of sound carries the time at
which it is presented, and both streams share that clock. So an encoder's delay, a late first frame
or a hole in the sound leaves the offset between picture and sound as the file has it. (Counting
drifts: a file with an 8 ms hole every 1.7 s of sound is off by 0.4 s after 90 s.)
"""

from collections.abc import Callable, Iterator
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer

# Containers round times to 1 ms or so; sound off by more than this has a hole or an overlap.
_JITTER_SECONDS = 0.004
_LONGEST_HOLE_SECONDS = 600.0
_LONGEST_OVERLAP_SECONDS = 1.0
# 8K video has 33 million. A damaged header can ask for a thousand times as much memory.
LARGEST_PIXELS = 1 << 26
_HIGHEST_RATE_HZ = 1_000_000

CHANNEL_POLICIES = ("mono", "left", "stereo")


class StreamError(Exception):
    """A stream is damaged, or its presentation times make no sense."""


def _nothing() -> None:
    pass


class Pictures:
    """The frames of one stream by presentation time; times asked for must not go back.

    Args:
      container: read by nobody else.
      stream: of that container.
      fps: the wanted rate in Hz.
      alive: called before every frame is decoded.

    Raises StreamError, here and later.
    """

    def __init__(
        self,
        container: InputContainer,
        stream: av.VideoStream,
        *,
        fps: float,
        alive: Callable[[], None] = _nothing,
    ):
        _check_size(stream.width, stream.height)
        # A stream may change its size on the way: the decoder holds the limit from there on.
        stream.codec_context.options = {"max_pixels": str(LARGEST_PIXELS)}
        self.pixel_aspect = float(stream.sample_aspect_ratio or 1)
        self._alive = alive
        self._frames = container.decode(stream)
        rate = stream.average_rate or stream.guessed_rate
        # One source frame; but a slow or stuttering source holds its frame, and never looks
        # ahead by more than half of the wanted interval.
        self._interval = 1.0 / max(float(rate or 0), fps)
        self._shown: av.VideoFrame | None = None
        self._next = self._decode()
        if self._next is None:
            raise StreamError("not one frame can be decoded")
        self.first_seconds: float = seconds_of(self._next)

    def first_at_or_after(self, seconds: float) -> float | None:
        """The time of the first frame at or after `seconds`, or None."""
        while self._next is not None and seconds_of(self._next) < seconds:
            self._advance()
        return None if self._next is None else seconds_of(self._next)

    def shown_at(self, seconds: float, *, hold: bool = False) -> av.VideoFrame | None:
        """The last frame presented by `seconds` plus half an interval.

        After the stream's end None, or with `hold` its last frame.
        """
        limit = seconds + 0.5 * self._interval - 1e-4  # a tie goes to the earlier frame
        while self._next is not None and seconds_of(self._next) <= limit:
            self._advance()
        if self._next is None and self._shown is not None and not hold:
            duration = float((self._shown.duration or 0) * _base(self._shown)) or self._interval
            if seconds > seconds_of(self._shown) + max(duration, self._interval) - 1e-4:
                return None
        return self._shown or self._next

    def _advance(self) -> None:
        self._shown, self._next = self._next, self._decode()

    def _decode(self) -> av.VideoFrame | None:
        self._alive()
        frame = next(self._frames, None)
        if frame is None:
            return None
        now = seconds_of(frame)
        if frame.is_corrupt:
            raise StreamError(f"it has a damaged picture at {now:.3f} s")
        if self._shown is not None and now < seconds_of(self._shown):
            raise StreamError(f"its pictures go back in time at {now:.3f} s")
        if self._shown is not None and now > seconds_of(self._shown) + _LONGEST_HOLE_SECONDS:
            raise StreamError(f"its pictures jump to {now:.3f} s")
        return frame


class Sound:
    """The samples of one stream by presentation time: sample n is the sound at n / rate seconds.

    Args:
      container: read by nobody else.
      stream: of that container.
      sample_rate_hz: the wanted rate.
      channels: "mono" is the mean of all channels (unlike a sum of powers it can never clip),
        "left" the first one, "stereo" two, mixed down or doubled where the file has another number.
      shift_seconds: added to the stream's times.
      alive: called before every frame is decoded.

    Raises StreamError, here and later.
    """

    def __init__(
        self,
        container: InputContainer,
        stream: av.AudioStream,
        *,
        sample_rate_hz: int,
        channels: str = "mono",
        shift_seconds: float = 0.0,
        alive: Callable[[], None] = _nothing,
    ):
        if not 0 < stream.rate <= _HIGHEST_RATE_HZ:
            raise StreamError(f"its sound claims {stream.rate} samples a second")
        self._rate, self._channels, self._shift = sample_rate_hz, channels, shift_seconds
        self._alive = alive
        self._pieces = self._resampled(container.decode(stream))
        first = next(self._pieces, None)
        if first is None:
            raise StreamError("not one sample of its sound can be decoded")
        self._start, self._samples = first  # what is held: samples from index _start on
        self.first_seconds = self._start / self._rate

    def samples(self, first: int, count: int, *, slack: int) -> np.ndarray | None:
        """Samples [first, first + count) as int16 [count] or [count 2].

        Up to `slack` that are lacking at an end are silence; None if more are.
        """
        while self._start + self._held < first + count:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._append(*piece, keep_from=first)
        missing_before = max(self._start - first, 0)
        missing_after = max(first + count - self._start - self._held, 0)
        if missing_before > slack or missing_after > slack:
            return None
        held = self._samples[:, max(first - self._start, 0) :]
        held = held[:, : max(count - missing_before, 0)]
        lack_before = min(missing_before, count)
        held = np.pad(held, ((0, 0), (lack_before, count - lack_before - held.shape[1])))
        whole = np.rint(np.clip(held * 32768.0, -32768, 32767)).astype(np.int16)
        return whole.T if self._channels == "stereo" else whole[0]

    @property
    def end_seconds(self) -> float:
        """The end of what has been read so far."""
        return (self._start + self._held) / self._rate

    @property
    def _held(self) -> int:
        return self._samples.shape[1]

    def _append(self, start: int, samples: np.ndarray, *, keep_from: int) -> None:
        end = self._start + self._held
        if start < end:
            samples = samples[:, end - start :]
        hole = np.zeros((len(samples), max(start - end, 0)), np.float32)
        drop = min(max(keep_from - self._start, 0), self._held)
        self._samples = np.concatenate([self._samples[:, drop:], hole, samples], axis=1)
        self._start += drop

    def _resampled(self, frames: Iterator[av.AudioFrame]) -> Iterator[tuple[int, np.ndarray]]:
        """(index of the first sample, samples [c n]) of each piece, in order.

        A run of frames without a hole goes through one resampler, whose output is in step with
        its input (its filter's delay is taken out); a hole or a new format starts another.
        """
        resampler, form, origin, heard, written = None, None, 0.0, 0, 0
        self._alive()
        for frame in frames:
            self._alive()
            start = seconds_of(frame) + self._shift
            if resampler is not None and form is not None:
                late = start - (origin + heard / form[0])
                if late > _LONGEST_HOLE_SECONDS or late < -_LONGEST_OVERLAP_SECONDS:
                    raise StreamError(f"its sound jumps by {late:.3f} s at {start:.3f} s")
                if abs(late) > _JITTER_SECONDS or form != _format(frame):
                    yield round(origin * self._rate) + written, self._mix(resampler.resample(None))
                    resampler = None
            if resampler is None:
                form, origin, heard, written = _format(frame), start, 0, 0
                layout = "stereo" if self._channels == "stereo" else form[1]
                resampler = av.AudioResampler(format="fltp", layout=layout, rate=self._rate)
            heard += frame.samples
            piece = self._mix(resampler.resample(frame))
            yield round(origin * self._rate) + written, piece
            written += piece.shape[1]
        if resampler is not None:
            yield round(origin * self._rate) + written, self._mix(resampler.resample(None))

    def _mix(self, frames: list[av.AudioFrame]) -> np.ndarray:
        """Float32 [c n]."""
        pieces = [frame.to_ndarray() for frame in frames if frame is not None]
        if not pieces:
            return np.zeros((2 if self._channels == "stereo" else 1, 0), np.float32)
        whole = np.concatenate(pieces, axis=1)
        if self._channels == "stereo":
            return whole
        return whole[:1] if self._channels == "left" else whole.mean(axis=0, keepdims=True)


def seconds_of(frame: av.VideoFrame | av.AudioFrame) -> float:
    """When the frame is presented; StreamError if it does not say."""
    if frame.pts is None:
        raise StreamError("it has a frame without a presentation time")
    return float(frame.pts * _base(frame))


def _check_size(width: int, height: int) -> None:
    if width * height > LARGEST_PIXELS:
        raise StreamError(
            f"its pictures claim {width} x {height} pixels, beyond the limit of {LARGEST_PIXELS}"
        )


def _format(frame: av.AudioFrame) -> tuple[int, str]:
    return frame.sample_rate, frame.layout.name


def _base(frame: av.VideoFrame | av.AudioFrame) -> Fraction:
    if frame.time_base is None:
        raise StreamError("it has a frame without a presentation time")
    return frame.time_base
