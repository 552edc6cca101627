# SPDX-License-Identifier: Apache-2.0
"""The pictures and the sound of a file by presentation time, each read once from front to back.

Frames and samples are never counted: every frame and every packet of sound carries the time at
which it is presented, and both streams share that clock. So an encoder's delay, a late first frame
or a hole in the sound leaves the offset between picture and sound as the file has it. (Counting
drifts: a file with an 8 ms hole every 1.7 s of sound is off by 0.4 s after 90 s.)
"""

import math
from collections.abc import Callable, Iterator
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

# Containers round times to 1 ms or so; sound off by more than this has a hole or an overlap.
_JITTER_SECONDS = 0.004
_ROUNDING_SECONDS = 1.1e-3
_LONGEST_HOLE_SECONDS = 60.0
_LONGEST_OVERLAP_SECONDS = 1.0
# Recordings of a screen show one picture for minutes.
LONGEST_PICTURE_SECONDS = 600.0
# 8K video has 33 million. A damaged header can ask for a thousand times as much memory.
LARGEST_PIXELS = 1 << 26
# A header damaged to 1 Hz would make hours of a few kilobytes.
_LOWEST_RATE_HZ, _HIGHEST_RATE_HZ = 1000, 1_000_000

_BLOCK_SAMPLES = 8192  # resampled at once: a call for every frame costs more than the decoding

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
        self.reformatter = VideoReformatter()
        self._alive = alive
        self._frames = container.decode(stream)
        # Not the rate that the file claims: 1000 Hz or 90 kHz is common where it varies.
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
        """The time of the first frame at or after `seconds`, or None."""
        while self._next is not None and seconds_of(self._next) < seconds:
            self._advance()
        return None if self._next is None else seconds_of(self._next)

    def shown_at(self, seconds: float, *, hold: bool = False) -> av.VideoFrame | None:
        """The frame presented nearest to `seconds`, but none more than half an interval ahead.

        After the stream's end None, or with `hold` its last frame.
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
            # A slow or stuttering source holds its frame: the next one is not shown far too early.
            step = seconds_of(self._next) - seconds_of(self._shown)
            self._step = min(step, self._interval)

    def _decode(self) -> av.VideoFrame | None:
        self._alive()
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
    """The samples of one stream by presentation time: sample n is the sound at n / rate seconds.

    Args:
      container: read by nobody else.
      stream: of that container.
      sample_rate_hz: the wanted rate.
      channels: "mono" is the mean of all channels (unlike a sum of powers it can never clip),
        "left" the first one, "stereo" two, mixed down or doubled where the file has another number.
      shift_seconds: added to the stream's times.
      sought: whether the container is read from a place that was sought in it.
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
        sought: bool = False,
        alive: Callable[[], None] = _nothing,
    ):
        _check_rate(stream.rate)
        self._rate, self._channels, self._shift = sample_rate_hz, channels, shift_seconds
        self._alive = alive
        self._stream, self._sought = stream, sought
        self._pieces = self._runs(container.decode(stream))
        first = next(self._pieces, None)
        if first is None and not sought:
            raise StreamError("not one sample of its sound can be decoded")
        # What is held: samples from index _start on. Sound may end before the place sought.
        self._start, self._samples = first or (0, np.zeros((2, 0), np.float32))
        self.first_seconds = np.inf if first is None else self._start / self._rate

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

    def _runs(self, frames: Iterator[av.AudioFrame]) -> Iterator[tuple[int, np.ndarray]]:
        """(index of the first sample, samples [c n]) of each piece, in order.

        A hole or a new format ends a run of frames, and begins another.
        """
        run = None
        self._alive()
        if self._sought:
            next(frames, None)  # which the decoder may have cut
        for frame in frames:
            self._alive()
            start = seconds_of(frame) + self._shift
            if run is not None:
                late = run.late(start)
                if late > _LONGEST_HOLE_SECONDS or late < -_LONGEST_OVERLAP_SECONDS:
                    raise StreamError(f"its sound jumps by {late:.3f} s at {start:.3f} s")
                if abs(late) > _JITTER_SECONDS or run.form != _format(frame):
                    yield run.add(None)
                    run = _Run(frame, start, rate=self._rate, channels=self._channels)
            else:
                start = self._counted(frame) + self._shift
                run = _Run(frame, start, rate=self._rate, channels=self._channels)
            yield run.add(frame)
        if run is not None:
            yield run.add(None)

    def _counted(self, frame: av.AudioFrame) -> float:
        """When the frame is presented, to the sample, counted in frames from the stream's first.

        Only after a seek: containers that round their times leave it open by up to a millisecond.
        """
        start = seconds_of(frame)
        if not (self._sought and frame.samples) or self._stream.start_time is None:
            return start
        # The stream's first frame began before its first sample that is heard.
        length = frame.samples / frame.sample_rate
        whole = float(self._stream.start_time * _base(frame))
        whole -= self._stream.codec_context.delay / frame.sample_rate
        counted = whole + round((start - whole) / length) * length
        return counted if abs(counted - start) < _ROUNDING_SECONDS else start


class _Run:
    """Sound without a hole, resampled onto whole multiples of 1 / rate on the file's clock.

    Where it is cut or begun does not change a sample, but for what the filter hears at its ends.

    Args:
      frame: the first.
      start: when it is presented, seconds.
      rate: the wanted one.
      channels: as of `Sound`.
    """

    def __init__(self, frame: av.AudioFrame, start: float, *, rate: int, channels: str):
        self.form = _format(frame)
        self._start, self._heard = start, 0
        self._channels, self._count = channels, 2 if channels == "stereo" else 1
        source = frame.sample_rate
        _check_rate(source)
        # Packed, since PyAV crashes on planar frames of eight channels and more. Mixed by `_mixed`,
        # since FFmpeg makes stereo of mono at -3 dB.
        many = channels == "stereo" and frame.layout.nb_channels > 2
        layout = "stereo" if many else self.form[1]
        self._unpacker = av.AudioResampler(format="flt", layout=layout, rate=source)
        self._layout = "stereo" if channels == "stereo" else "mono"
        self._resampler = av.AudioResampler(format="fltp", layout=self._layout, rate=rate)
        # The clocks of source and result agree once in `step` samples of the source: there the
        # resampler begins, with silence before the first frame.
        divisor = math.gcd(source, rate)
        step = source // divisor
        first = round(start * source)
        lead = first % step
        self._lead = np.zeros((self._count, lead), np.float32)
        self._waiting: list[np.ndarray] = []
        self._fed = 0
        self._index = (first - lead) // step * (rate // divisor)
        self._skip = math.ceil(Fraction(lead * rate, source))

    def late(self, start: float) -> float:
        """By how many seconds a frame presented at `start` is later than the end of the run."""
        return start - (self._start + self._heard / self.form[0])

    def add(self, frame: av.AudioFrame | None) -> tuple[int, np.ndarray]:
        """(index of the first sample, samples [c n]) of what is ready now; None ends the run."""
        self._heard += 0 if frame is None else frame.samples
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
        """The wanted channels, float32 [c n], of all, float32 [n channels]."""
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
        frame.sample_rate, frame.time_base = self.form[0], Fraction(1, self.form[0])
        frame.pts = self._fed
        self._fed += frame.samples
        return self._resampler.resample(frame)


def seconds_of(frame: av.VideoFrame | av.AudioFrame) -> float:
    """When the frame is presented; StreamError if it does not say."""
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
