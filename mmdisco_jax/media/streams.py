# SPDX-License-Identifier: Apache-2.0
"""Readers of the pictures and the sound of a file by presentation time, from front to back.

Every frame and every packet of sound carries the time at which it is presented, and both streams
share that clock. The readers use these times and never count frames or samples, so an encoder's
delay, a late first frame or a hole in the sound does not shift picture against sound. Counting
would drift: with a hole of 8 ms every 1.7 s, sound is off by 0.4 s after 90 s.
"""

import math
from collections.abc import Callable, Iterator
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

# Containers round times to about 1 ms. Sound that is off by more has a hole or an overlap.
_JITTER_SECONDS = 0.004
_ROUNDING_SECONDS = 1.1e-3
_LONGEST_HOLE_SECONDS = 60.0
_LONGEST_OVERLAP_SECONDS = 1.0
# Screen recordings may show one picture for minutes.
LONGEST_PICTURE_SECONDS = 600.0
# 8K video has 33 million pixels; a damaged header can claim a thousand times as many.
LARGEST_PIXELS = 1 << 26
# A header damaged to 1 Hz would turn a few kilobytes into hours of sound.
_LOWEST_RATE_HZ, _HIGHEST_RATE_HZ = 1000, 1_000_000

# Resampled at once, because one call for every frame would cost more than the decoding.
_BLOCK_SAMPLES = 8192

CHANNEL_POLICIES = ("mono", "left", "stereo")


class StreamError(Exception):
    """Raised when a stream is damaged or its presentation times make no sense."""


def _nothing() -> None:
    pass


class Pictures:
    """Reader of the frames of one stream by presentation time; requested times must not decrease.

    Args:
      container: an open container that nothing else reads.
      stream: a picture stream of that container.
      fps: the wanted frame rate in Hz.
      heartbeat: called before every frame is decoded.

    Raises:
      StreamError: the stream is damaged; raised by the constructor and by every method.
    """

    def __init__(
        self,
        container: InputContainer,
        stream: av.VideoStream,
        *,
        fps: float,
        heartbeat: Callable[[], None] = _nothing,
    ):
        _check_size(stream.width, stream.height)
        # A stream may change its size later, so the decoder checks the limit as well.
        stream.codec_context.options = {"max_pixels": str(LARGEST_PIXELS)}
        self.pixel_aspect = float(stream.sample_aspect_ratio or 1)
        self.reformatter = VideoReformatter()
        self._heartbeat = heartbeat
        self._frames = container.decode(stream)
        # The wanted rate, because a file with a variable rate often claims 1000 Hz or 90 kHz.
        self._interval = self._step = 1.0 / fps
        self._shown: av.VideoFrame | None = None
        self._next: av.VideoFrame | None = None
        try:
            self._next = self._decode()
        except FFmpegError as error:
            if stream.width and stream.height:
                raise
            raise StreamError(
                f"the size of its pictures is not known, or beyond {LARGEST_PIXELS} pixels"
            ) from error
        if self._next is None:
            raise StreamError("not one frame can be decoded")
        self.first_seconds: float = seconds_of(self._next)

    def first_at_or_after(self, seconds: float) -> float | None:
        """Returns the time of the first frame at or after `seconds`, or None."""
        while self._next is not None and seconds_of(self._next) < seconds:
            self._advance()
        return None if self._next is None else seconds_of(self._next)

    def shown_at(self, seconds: float, *, hold: bool = False) -> av.VideoFrame | None:
        """Returns the frame nearest to `seconds`, but none more than half an interval ahead.

        After the stream's end it returns None, or the last frame if `hold` is set.
        """
        while self._next is not None:
            early = 0.5 * self._step - 1e-4  # a tie goes to the earlier frame
            if seconds_of(self._next) > seconds + early:
                break
            self._advance()
        if self._next is None and self._shown is not None and not hold:
            duration = float((self._shown.duration or 0) * _base(self._shown))
            if seconds > seconds_of(self._shown) + max(duration, self._step) - 1e-4:
                return None
        return self._shown or self._next

    def _advance(self) -> None:
        self._shown, self._next = self._next, self._decode()
        if self._shown is not None and self._next is not None:
            # Limited, so that a slow or stuttering source does not show its next frame too early.
            step = seconds_of(self._next) - seconds_of(self._shown)
            self._step = min(step, self._interval)

    def _decode(self) -> av.VideoFrame | None:
        self._heartbeat()
        frame = next(self._frames, None)
        if frame is None:
            return None
        now = seconds_of(frame)
        if frame.is_corrupt:
            raise StreamError(f"it has a damaged picture at {now:.3f} s")
        before = None if self._next is None else seconds_of(self._next)
        if before is not None and now < before:
            raise StreamError(f"its pictures go back in time at {now:.3f} s")
        if before is not None and now > before + LONGEST_PICTURE_SECONDS:
            raise StreamError(f"its pictures jump to {now:.3f} s")
        return frame


class Sound:
    """Reader of the samples of one stream by presentation time.

    Sample n is the sound at n / sample_rate_hz seconds.

    Args:
      container: an open container that nothing else reads.
      stream: a sound stream of that container.
      sample_rate_hz: the wanted rate.
      channels: "mono" is the mean of all channels (which cannot clip, unlike a sum of powers),
        "left" the first one, "stereo" two, mixed down or doubled from another number.
      shift_seconds: added to the stream's times.
      after_seek: whether a seek in the container came before.
      heartbeat: called before every frame is decoded.

    Raises:
      StreamError: the stream is damaged; raised by the constructor and by every method.
    """

    def __init__(
        self,
        container: InputContainer,
        stream: av.AudioStream,
        *,
        sample_rate_hz: int,
        channels: str = "mono",
        shift_seconds: float = 0.0,
        after_seek: bool = False,
        heartbeat: Callable[[], None] = _nothing,
    ):
        _check_rate(stream.rate)
        self._rate, self._channels, self._shift = sample_rate_hz, channels, shift_seconds
        self._heartbeat = heartbeat
        self._stream, self._after_seek = stream, after_seek
        self._pieces = self._runs(container.decode(stream))
        first = next(self._pieces, None)
        if first is None and not after_seek:
            raise StreamError("not one sample of its sound can be decoded")
        # Buffered samples, from index _start on. None are left if sound ends before the seek.
        self._start, self._samples = first or (0, np.zeros((2, 0), np.float32))
        self.first_seconds = np.inf if first is None else self._start / self._rate

    def samples(self, first: int, count: int, *, slack: int) -> np.ndarray | None:
        """Returns samples [first, first + count) as int16 [count] or [count 2].

        Up to `slack` missing samples at either end are filled with silence; if more are missing,
        the result is None.
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
        """End of the sound that has been read so far."""
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

    def _runs(self, frames: Iterator[av.AudioFrame]) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (index of the first sample, samples [c n]) in order.

        A hole or a change of format ends one run of frames and begins another.
        """
        run = None
        self._heartbeat()
        if self._after_seek:
            next(frames, None)  # the decoder may have truncated the first frame
        for frame in frames:
            self._heartbeat()
            start = seconds_of(frame) + self._shift
            if run is not None:
                late = run.lateness(start)
                if late > _LONGEST_HOLE_SECONDS or late < -_LONGEST_OVERLAP_SECONDS:
                    raise StreamError(f"its sound jumps by {late:.3f} s at {start:.3f} s")
                if abs(late) > _JITTER_SECONDS or run.format != _format(frame):
                    yield run.add(None)
                    run = _Run(frame, start, rate=self._rate, channels=self._channels)
            else:
                start = self._exact_start(frame) + self._shift
                run = _Run(frame, start, rate=self._rate, channels=self._channels)
            yield run.add(frame)
        if run is not None:
            yield run.add(None)

    def _exact_start(self, frame: av.AudioFrame) -> float:
        """The frame's presentation time, exact to the sample also after a seek.

        Containers that round times leave up to a millisecond open. After a seek the exact time is
        recovered by counting whole frames from the beginning of the stream.
        """
        start = seconds_of(frame)
        if not (self._after_seek and frame.samples) or self._stream.start_time is None:
            return start
        # The stream's first frame begins before its first audible sample.
        length = frame.samples / frame.sample_rate
        whole = float(self._stream.start_time * _base(frame))
        whole -= self._stream.codec_context.delay / frame.sample_rate
        counted = whole + round((start - whole) / length) * length
        return counted if abs(counted - start) < _ROUNDING_SECONDS else start


class _Run:
    """Resampler of sound without holes onto multiples of 1 / rate on the file's clock.

    The grid does not depend on where a run begins or how it is divided, so the same instant always
    gives the same sample, except within the filter's length of the run's ends.

    Args:
      frame: the first frame of the run.
      start: presentation time of that frame in seconds.
      rate: the wanted rate in Hz.
      channels: as for `Sound`.
    """

    def __init__(self, frame: av.AudioFrame, start: float, *, rate: int, channels: str):
        self.format = _format(frame)
        self._start, self._num_added = start, 0
        self._channels, self._count = channels, 2 if channels == "stereo" else 1
        source = frame.sample_rate
        _check_rate(source)
        # Packed, because PyAV crashes on planar frames of eight channels and more. Mixed by
        # `_mixed`, because FFmpeg turns mono into stereo at -3 dB.
        many = channels == "stereo" and frame.layout.nb_channels > 2
        layout = "stereo" if many else self.format[1]
        self._unpacker = av.AudioResampler(format="flt", layout=layout, rate=source)
        self._layout = "stereo" if channels == "stereo" else "mono"
        self._resampler = av.AudioResampler(format="fltp", layout=self._layout, rate=rate)
        # The grids of source and result coincide at every `step`-th source sample. The resampler
        # begins at such a sample, with silence before the first frame.
        divisor = math.gcd(source, rate)
        step = source // divisor
        first = round(start * source)
        lead = first % step
        self._lead = np.zeros((self._count, lead), np.float32)
        self._waiting: list[np.ndarray] = []
        self._fed = 0
        self._index = (first - lead) // step * (rate // divisor)
        self._skip = math.ceil(Fraction(lead * rate, source))

    def lateness(self, start: float) -> float:
        """Seconds from the end of the run to a frame that is presented at `start`."""
        return start - (self._start + self._num_added / self.format[0])

    def add(self, frame: av.AudioFrame | None) -> tuple[int, np.ndarray]:
        """Adds a frame, or ends the run for None.

        Returns (index of the first sample, samples [c n]) of the sound that is ready.
        """
        self._num_added += 0 if frame is None else frame.samples
        for piece in filter(None, self._unpacker.resample(frame)):
            samples = np.asarray(piece.to_ndarray())
            self._waiting.append(samples.reshape(-1, piece.layout.nb_channels))
        frames = []
        if frame is None or sum(map(len, self._waiting)) >= _BLOCK_SAMPLES:
            frames = self._resample_waiting()
        if frame is None:
            frames += self._resampler.resample(None)
        pieces = [piece.to_ndarray() for piece in frames if piece is not None]
        ready = np.concatenate([np.zeros((self._count, 0), np.float32), *pieces], axis=1)
        skipped = min(self._skip, ready.shape[1])
        index = self._index + self._skip
        self._index += ready.shape[1]
        self._skip -= skipped
        return index, ready[:, skipped:]

    def _mixed(self, packed: np.ndarray) -> np.ndarray:
        """Mixes packed samples float32 [n channels] into the wanted channels, float32 [c n]."""
        samples = packed.T
        if self._channels == "stereo":
            return samples[[0, -1]]
        return samples[:1] if self._channels == "left" else samples.mean(axis=0, keepdims=True)

    def _resample_waiting(self) -> list[av.AudioFrame]:
        waiting, self._waiting = self._waiting, []
        if not any(map(len, waiting)):
            return []
        samples = np.concatenate([self._lead, self._mixed(np.concatenate(waiting))], axis=1)
        self._lead = self._lead[:, :0]
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=self._layout)
        frame.sample_rate, frame.time_base = self.format[0], Fraction(1, self.format[0])
        frame.pts = self._fed
        self._fed += frame.samples
        return self._resampler.resample(frame)


def seconds_of(frame: av.VideoFrame | av.AudioFrame) -> float:
    """Returns the frame's presentation time in seconds; StreamError if it has none."""
    seconds = frame.time
    if seconds is None:
        raise StreamError("it has a frame without a presentation time")
    return seconds


def _check_size(width: int, height: int) -> None:
    if width * height > LARGEST_PIXELS:
        raise StreamError(
            f"its pictures claim {width} x {height} pixels, beyond the limit of {LARGEST_PIXELS}"
        )


def _check_rate(rate: int) -> None:
    if not _LOWEST_RATE_HZ <= rate <= _HIGHEST_RATE_HZ:
        raise StreamError(f"its sound claims {rate} samples a second")


def _format(frame: av.AudioFrame) -> tuple[int, str]:
    return frame.sample_rate, frame.layout.name


def _base(frame: av.VideoFrame | av.AudioFrame) -> Fraction:
    if frame.time_base is None:
        raise StreamError("it has a frame without a presentation time")
    return frame.time_base
