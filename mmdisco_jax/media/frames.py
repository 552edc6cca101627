# SPDX-License-Identifier: Apache-2.0
"""Decoded pictures in the order of presentation, each with its time, deinterlaced where needed."""

import heapq
from collections.abc import Callable, Iterable, Iterator

import av
from av.container import InputContainer
from av.error import BlockingIOError, EOFError
from av.filter import Graph

# H.264 and HEVC reorder at most 16 pictures. More that wait were lost.
_MOST_REORDERED = 16
_WRONG_GUESS_SECONDS = 0.5
_LEAST_PIXELS = 4  # bwdif refuses smaller pictures
# An AVI file cannot say how much silence the encoder of its sound has put before it, samples.
# AAC begins with one block (ISO/IEC 14496-3); MP3 with 576 of LAME's encoder and 529 of decoders.
_ENCODER_DELAYS = {"aac": 1024, "mp3": 1105, "mp3float": 1105}


def counts_pictures(container: InputContainer, stream: av.VideoStream) -> bool:
    """Whether the file says only the order of its pictures although they are stored out of order.

    AVI holds no presentation times, and for reordered pictures (B-frames) FFmpeg guesses wrongly.
    """
    return "avi" in container.format.name.split(",") and stream.codec_context.has_b_frames


def sound_delay_seconds(stream: av.AudioStream) -> float:
    """Silence that the encoder of the sound in an AVI file is known to put before it."""
    return _ENCODER_DELAYS.get(stream.codec_context.name, 0) / stream.rate


def by_order(container: InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """Yields the frames of a stream for which `counts_pictures`: the n-th shown gets the n-th time.

    The times are those at which the pictures are stored, which AVI holds exactly.
    """
    times: list[int] = []
    most = _MOST_REORDERED + max(stream.codec_context.thread_count, 1)
    for packet in container.demux(stream):
        if packet.size and packet.dts is not None:
            heapq.heappush(times, packet.dts)
        for frame in packet.decode():
            if times:
                frame.pts = heapq.heappop(times)
            yield frame
        while len(times) > most:
            heapq.heappop(times)


def guesses_times(container: InputContainer) -> bool:
    """Whether the file has times now and then only (MPEG-PS), and FFmpeg guesses those between."""
    return container.format.name == "mpeg"


def timed(
    frames: Iterable[av.VideoFrame], interval: float, *, guessed: bool = False
) -> Iterator[av.VideoFrame]:
    """Yields frames as they are, and gives one without a time that of its predecessor's end.

    Decoders lose times at the end, when they are asked for what they still hold.

    Args:
      interval: seconds between two pictures, where the predecessor's duration is not known.
      guessed: whether times that go back a little are wrong guesses; they become the last one.
    """
    last = None
    for frame in frames:
        if guessed and last is not None and frame.pts is not None:
            back = float((last.pts - frame.pts) * frame.time_base)
            if 0 < back < _WRONG_GUESS_SECONDS:
                frame.pts = last.pts
        if frame.pts is None and frame.time_base:
            if last is None:
                frame.pts = frame.dts
            else:
                frame.pts = last.pts + (last.duration or round(interval / frame.time_base))
        if frame.pts is not None:
            last = frame
        yield frame


def noticed(
    frames: Iterable[av.VideoFrame], notice: Callable[[str], None]
) -> Iterator[av.VideoFrame]:
    """Yields the frames as they are; `notice` is called at the first one flagged interlaced."""
    told = False
    for frame in frames:
        if frame.interlaced_frame and not told:
            told = True
            notice("interlaced")
        yield frame


def deinterlaced(
    frames: Iterable[av.VideoFrame], notice: Callable[[str], None]
) -> Iterator[av.VideoFrame]:
    """Yields progressive frames as they are, and two pictures for each that is flagged interlaced.

    Each field becomes a picture, shown at its own time, as in players (bwdif, the deinterlacer of
    FFmpeg that is made of the BBC's w3fdif and of yadif). Streams may mix both kinds of frames.

    Args:
      notice: called with "interlaced" at the first such frame.
    """
    frames, last = iter(frames), None
    for frame in frames:
        if frame.interlaced_frame and min(frame.width, frame.height) >= _LEAST_PIXELS:
            notice("interlaced")
            yield from _filtered(frame, frames, last)
            return
        yield frame
        last = frame


def _filtered(
    first: av.VideoFrame, frames: Iterator[av.VideoFrame], before: av.VideoFrame | None
) -> Iterator[av.VideoFrame]:
    """All frames from the first interlaced one on; `before` precedes it and was yielded already."""
    fields, from_pts = None, first.time
    if before is not None and _form(before) == _form(first):
        fields = _Fields(before)
        list(fields.add(before))
    frame: av.VideoFrame | None = first
    while frame is not None:
        if min(frame.width, frame.height) < _LEAST_PIXELS:
            yield from () if fields is None else _from(fields.add(None), from_pts)
            fields = None
            yield frame
            frame = next(frames, None)
            continue
        if fields is None or fields.form != _form(frame):
            yield from () if fields is None else _from(fields.add(None), from_pts)
            fields = _Fields(frame)
        yield from _from(fields.add(frame), from_pts)
        frame = next(frames, None)
    if fields is not None:
        yield from _from(fields.add(None), from_pts)


def _from(frames: Iterable[av.VideoFrame], seconds: float | None) -> Iterator[av.VideoFrame]:
    """The frames that are not earlier; the filter returns also the one that came before."""
    for frame in frames:
        if seconds is None or frame.time is None or frame.time > seconds - 1e-6:
            yield frame


class _Fields:
    """Filter graph that turns each interlaced frame of one size and format into two pictures."""

    def __init__(self, frame: av.VideoFrame):
        self.form = _form(frame)
        self._graph = graph = Graph()
        graph.threads = 1  # a worker for each core is busy already
        source = graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format.name,
            time_base=frame.time_base,
        )
        fields = graph.add("bwdif", mode="send_field", deint="interlaced")
        graph.link_nodes(source, fields, graph.add("buffersink")).configure()

    def add(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        """Yields what is ready after a frame, or after the last one for None."""
        self._graph.push(frame)
        while True:
            try:
                yield self._graph.pull()
            except (BlockingIOError, EOFError):
                return


def _form(frame: av.VideoFrame) -> tuple:
    return frame.width, frame.height, frame.format.name, frame.time_base
