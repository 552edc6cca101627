# SPDX-License-Identifier: Apache-2.0
"""One sequence of pictures and one of sound, written into many containers and codecs (PyAV only).

Every picture has its own time and the sound a start, on one clock. GIF and AVI cannot begin later
than 0: there black and silence come first. AVI and GIF show pictures at multiples of a tick only.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from av.container import OutputContainer
from av.video.reformatter import Colorspace

# By default a late start in MP4 is rounded down to a millisecond.
_EXACT_EDITS = {"movie_timescale": "705600"}
# swscale puts chroma amid four pixels; H.264 and HEVC can say so.
_CHROMA = {"chroma_sample_location": "center"}
_X264 = {"preset": "veryfast", "crf": "8", "bf": "2", "g": "48", **_CHROMA}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """A container with its codecs, and which times it can hold.

    Attributes:
      tick: pictures are shown at whole multiples of it, seconds.
      misplaced_seconds: by so much FFmpeg may write and read a late sound wrongly.
      late_pictures: the first picture may be later than 0; otherwise black is shown before it.
      late_sound: the sound may start later than 0; otherwise it begins with silence.
      begins_at_zero: the file's clock is the one that was written; MPEG-TS adds a constant.
      sidecar: the sound is in a .wav beside it.
    """

    suffix: str
    form: str
    pictures: str
    sound: str
    options: dict[str, str] = dataclasses.field(default_factory=dict)
    muxer: dict[str, str] = dataclasses.field(default_factory=dict)
    pixels: str = "yuv420p"
    sound_rate_hz: int = 48_000
    tick: Fraction = Fraction(1, 1000)
    misplaced_seconds: float = 0.0
    late_pictures: bool = True
    late_sound: bool = True
    begins_at_zero: bool = True
    sidecar: bool = False
    bt709: bool = False


LAYOUTS = {
    "mp4_h264": Layout(
        suffix="mp4",
        form="mp4",
        muxer=_EXACT_EDITS,
        pictures="libx264",
        sound="aac",
        options=_X264,
        sound_rate_hz=44_100,
        bt709=True,
    ),
    "mp4_hevc": Layout(
        suffix="mp4",
        form="mp4",
        muxer=_EXACT_EDITS,
        pictures="libx265",
        sound="aac",
        options={
            **_CHROMA,
            "preset": "ultrafast",
            "crf": "6",
            "x265-params": "bframes=3:keyint=40:open-gop=1:pools=1:frame-threads=1:log-level=none",
        },
    ),
    "mp4_mpeg4": Layout(
        suffix="mp4",
        form="mp4",
        muxer=_EXACT_EDITS,
        pictures="mpeg4",
        sound="aac",
        options={"bf": "2", "flags": "+qscale", "global_quality": "236", "g": "12"},
        sound_rate_hz=44_100,
    ),
    "mov_pcm": Layout(
        suffix="mov",
        form="mov",
        muxer=_EXACT_EDITS,
        pictures="libx264",
        sound="pcm_s16le",
        options=_X264,
        sound_rate_hz=44_100,
    ),
    "mkv": Layout(
        suffix="mkv",
        form="matroska",
        pictures="libx264",
        sound="aac",
        options=_X264,
        sound_rate_hz=44_100,
    ),
    "webm": Layout(
        suffix="webm",
        form="webm",
        pictures="libvpx-vp9",
        sound="libopus",
        options={"deadline": "realtime", "cpu-used": "6", "crf": "8", "b": "0", "g": "60"},
        # Times are in milliseconds, Opus is late by 6.5 ms; writer and reader both round up.
        misplaced_seconds=1e-3,
    ),
    "ts_mp3": Layout(
        suffix="ts",
        form="mpegts",
        pictures="libx264",
        sound="libmp3lame",
        options=_X264,
        sound_rate_hz=44_100,
        begins_at_zero=False,
    ),
    "ts_aac": Layout(
        suffix="ts",
        form="mpegts",
        pictures="libx264",
        sound="aac",
        options=_X264,
        begins_at_zero=False,
    ),
    "avi": Layout(
        suffix="avi",
        form="avi",
        pictures="mjpeg",
        sound="pcm_s16le",
        pixels="yuvj420p",
        options={"flags": "+qscale", "global_quality": "236"},
        sound_rate_hz=44_100,
        tick=Fraction(1, 25),
        late_sound=False,
    ),
    "gif": Layout(
        suffix="gif",
        form="gif",
        pictures="gif",
        sound="wav",
        pixels="rgb8",
        sound_rate_hz=44_100,
        tick=Fraction(1, 100),
        late_pictures=False,
        late_sound=False,
        sidecar=True,
    ),
}


def kept_times(layout: Layout, seconds: Iterable[float]) -> list[float]:
    """The nearest times that the container can hold."""
    return [float(round(s / layout.tick) * layout.tick) for s in seconds]


def write_media(
    path: Path,
    layout: Layout,
    *,
    pictures: np.ndarray,
    frame_seconds: Sequence[float],
    sound: np.ndarray,
    sound_start: float = 0.0,
) -> tuple[Path, Path | None]:
    """Writes uint8 `pictures` [f h w 3] shown at `frame_seconds`, and float `sound` [samples].

    Returns the file, its name ending as the container wants, and the file of its sound or None.
    """
    path = path.with_suffix("." + layout.suffix)
    ticks = [round(s / layout.tick) for s in frame_seconds]
    if not layout.late_pictures and ticks[0]:
        pictures, ticks = np.concatenate([np.zeros_like(pictures[:1]), pictures]), [0, *ticks]
    first = round(sound_start * layout.sound_rate_hz)
    if not layout.late_sound:
        sound, first = np.pad(sound, (first, 0)), 0
    beside = path.with_suffix(".wav") if layout.sidecar else None
    with av.open(str(path), "w", format=layout.form, options=layout.muxer) as container:
        packets = []
        stream = _picture_stream(container, layout, pictures.shape[1:3], ticks)
        if beside is None:
            heard: Any = container.add_stream(
                layout.sound, rate=layout.sound_rate_hz, layout="mono"
            )
            if layout.sound != "pcm_s16le":
                heard.bit_rate = 128_000
            for block in _sound_frames(sound, first, layout.sound_rate_hz):
                packets += heard.encode(block)
            packets += heard.encode(None)
        for picture, tick in zip(pictures, ticks, strict=True):
            packets += stream.encode(_picture_frame(picture, tick, layout))
        packets += stream.encode(None)
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            container.mux(packet)
    if beside is not None:
        soundfile.write(beside, sound, layout.sound_rate_hz, subtype="PCM_16")
    return path, beside


def _picture_stream(
    container: OutputContainer, layout: Layout, size: tuple[int, int], ticks: list[int]
) -> Any:
    seconds = (ticks[-1] - ticks[0]) * layout.tick
    rate = Fraction((len(ticks) - 1) / seconds).limit_denominator(1000)
    stream: Any = container.add_stream(layout.pictures, rate=rate, options=dict(layout.options))
    stream.height, stream.width, stream.pix_fmt = *size, layout.pixels
    stream.codec_context.time_base = layout.tick
    stream.codec_context.thread_count = 1
    if layout.bt709:
        stream.codec_context.colorspace = Colorspace.ITU709
    return stream


def _picture_frame(picture: np.ndarray, tick: int, layout: Layout) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    matrix = Colorspace.ITU709 if layout.bt709 else Colorspace.ITU601
    frame = frame.reformat(format=layout.pixels, dst_colorspace=matrix)
    frame.pts, frame.time_base = tick, layout.tick
    return frame


def _sound_frames(sound: np.ndarray, first: int, rate_hz: int) -> Iterator[av.AudioFrame]:
    """Blocks of 16 bits, each at its time."""
    whole = np.rint(np.clip(sound, -1, 1) * 32767).astype(np.int16)
    for start in range(0, len(whole), 1024):
        block = np.ascontiguousarray(whole[None, start : start + 1024])
        frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
        frame.sample_rate, frame.pts = rate_hz, first + start
        frame.time_base = Fraction(1, rate_hz)
        yield frame


def first_picture_seconds(path: Path) -> float:
    """On the file's clock, as the container says, without decoding anything."""
    with av.open(str(path)) as container:
        packets = container.demux(container.streams.video[0])
        return min(float(p.pts * p.time_base) for p in packets if p.pts is not None)
