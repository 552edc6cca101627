# SPDX-License-Identifier: Apache-2.0
"""Media as phones, cameras and recorders write them: turned, HDR, interlaced, several tracks."""

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.filter import Graph
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc

SIZE = (64, 96)  # rows, columns
FPS, RATE_HZ = 25, 48_000
TICK = Fraction(1, FPS)

# (a, b, c, d) of a display matrix: column x, row y go to column a x + c y, row b x + d y. With what
# FFmpeg's command line does on reading them (fftools/ffmpeg_filter.c, `autorotate`).
ORIENTATIONS = {
    "upright": ((1, 0, 0, 1), []),
    "mirrored": ((-1, 0, 0, 1), ["hflip"]),
    "upside down": ((-1, 0, 0, -1), ["hflip", "vflip"]),
    "flipped": ((1, 0, 0, -1), ["vflip"]),
    "clockwise": ((0, 1, -1, 0), ["transpose=clock"]),
    "anticlockwise": ((0, -1, 1, 0), ["transpose=cclock"]),
    "transposed": ((0, 1, 1, 0), ["transpose=cclock_flip"]),
    "transposed otherwise": ((0, -1, -1, 0), ["transpose=clock_flip"]),
}

# Eight bars as an SDR display shows them: greys, colours, skin; R'G'B' of BT.1886.
BARS = np.array(
    [
        [255, 255, 255],
        [191, 191, 191],
        [128, 128, 128],
        [64, 64, 64],
        [220, 30, 30],
        [30, 180, 30],
        [40, 60, 220],
        [240, 200, 160],
    ]
)
_BAR_WIDTH = 32
# ITU-R BT.2087: linear light of BT.709 in the primaries of BT.2020.
_TO_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])


def write_film(
    path: Path,
    pictures: Sequence[av.VideoFrame],
    *,
    form: str = "matroska",
    codec: str = "ffv1",
    options: dict[str, str] | None = None,
    fps: int = FPS,
    sounds: Sequence[tuple[str, np.ndarray]] = (),
    set_up: Callable[[Any], None] = lambda stream: None,
    streams: Callable[[Any], None] = lambda container: None,
    muxer: dict[str, str] | None = None,
    more: Sequence[Any] = (),
) -> Path:
    """Writes frames one after the other, and sound tracks (codec, samples [n] or [n c]) from 0.

    `set_up` changes the picture stream before it is opened, `streams` adds others to the container;
    `more` packets follow those of the pictures.
    """
    with av.open(str(path), "w", format=form, options=muxer or {}) as container:
        stream: Any = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height = pictures[0].width, pictures[0].height
        stream.pix_fmt = pictures[0].format.name
        stream.codec_context.thread_count = 1
        set_up(stream)
        tracks = [_sound_track(container, *sound) for sound in sounds]
        streams(container)
        packets = []
        for (codec_name, samples), track in zip(sounds, tracks, strict=True):
            del codec_name
            packets += _encoded_sound(track, samples)
        for index, picture in enumerate(pictures):
            picture.pts, picture.time_base = index, Fraction(1, fps)
            packets += stream.encode(picture)
        packets += [*stream.encode(None), *more]
        for packet in sorted(packets, key=lambda p: float((p.dts or 0) * p.time_base)):
            container.mux(packet)
    return path


def _sound_track(container: Any, codec: str, samples: np.ndarray) -> Any:
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[channels]
    rate = 44_100 if codec.startswith("wma") else RATE_HZ
    track = container.add_stream(codec, rate=rate, layout=layout)
    if not codec.startswith("pcm"):
        track.bit_rate = 64_000 * channels
    return track


def _encoded_sound(track: Any, samples: np.ndarray) -> list:
    rate, layout = track.rate, track.codec_context.layout.name
    wave = samples.reshape(len(samples), -1).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(wave.reshape(1, -1), format="flt", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    return [*track.encode(frame), *track.encode(None)]


def tone(seconds: float, rate_hz: int = RATE_HZ) -> np.ndarray:
    """A sine of 440 Hz at half scale."""
    return 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate_hz)) / rate_hz)


def scene(count: int, size: tuple[int, int] = SIZE, form: str = "yuv420p") -> list[av.VideoFrame]:
    """Smooth pictures in which no side is like another, the same all the time."""
    rows, columns = np.mgrid[: size[0], : size[1]] / np.array(size)[:, None, None]
    picture = np.stack([255 * rows, 255 * columns, 120 * (rows + 0.5 * columns)], axis=-1)
    frame = av.VideoFrame.from_ndarray(np.rint(picture).astype(np.uint8), format="rgb24")
    return [frame.reformat(format=form) for _ in range(count)]


def write_oriented(path: Path, name: str, seconds: float = 1.2) -> Path:
    """An MP4 whose track has the display matrix of `ORIENTATIONS[name]`."""
    count = round(seconds * FPS)
    write_film(path, scene(count), form="mp4", codec="libx264", sounds=[("aac", tone(seconds))])
    data = bytearray(path.read_bytes())
    a, b, c, d = ORIENTATIONS[name][0]
    at = data.index(b"tkhd") + 4 + 40  # the picture track's comes first
    one = 1 << 16
    data[at : at + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def filtered(frame: av.VideoFrame, filters: Sequence[str]) -> np.ndarray:
    """What FFmpeg's filters make of one frame, uint8 [h w 3]."""
    graph = Graph()
    template: Any = frame
    nodes = [graph.add_buffer(template=template)]
    nodes += [graph.add(*text.split("=", 1)) for text in [*filters, "format=rgb24"]]
    graph.link_nodes(*nodes, graph.add("buffersink")).configure()
    graph.push(frame)
    return graph.pull().to_ndarray()


def bars(transfer: ColorTrc, count: int, primaries: str = "BT2020") -> list[av.VideoFrame]:
    """`BARS` as 16-bit R'G'B' of HLG, PQ (white at 203 nits, BT.2408) or BT.709's transfer."""
    light = (BARS / 255) ** 2.4  # BT.1886
    light = light @ _TO_2020.T if primaries == "BT2020" else light
    if transfer == ColorTrc.SMPTE2084:
        power = (203 * light / 1e4) ** (2610 / 16384)
        signal = ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    elif transfer == ColorTrc.ARIB_STD_B67:
        nits = 203 * light / 1000
        luminance = nits @ np.array([0.2627, 0.6780, 0.0593])
        scene_light = nits * luminance[:, None] ** (1 / 1.2 - 1)  # inverse of the system's gamma
        signal = np.where(
            scene_light <= 1 / 12,
            np.sqrt(3 * scene_light),
            0.17883277 * np.log(np.maximum(12 * scene_light - 0.28466892, 1e-9)) + 0.55991073,
        )
    else:
        signal = light ** (1 / 2.4)
    picture = np.rint(65535 * signal).astype(np.uint16).repeat(_BAR_WIDTH, axis=0)
    picture = np.ascontiguousarray(np.broadcast_to(picture, (64, *picture.shape)))
    frame = av.VideoFrame.from_ndarray(picture, format="rgb48le")
    matrix = Colorspace.BT2020 if primaries == "BT2020" else Colorspace.ITU709
    return [frame.reformat(format="yuv420p10le", dst_colorspace=matrix) for _ in range(count)]


def write_bars(path: Path, transfer: ColorTrc, seconds: float = 1.2) -> Path:
    """A lossless file of `bars`, in BT.2020, that says which transfer function it has."""

    def tags(stream: Any) -> None:
        stream.codec_context.color_trc = transfer
        stream.codec_context.color_primaries = ColorPrimaries.BT2020
        stream.codec_context.colorspace = Colorspace.BT2020

    pictures = bars(transfer, round(seconds * FPS))
    return write_film(path, pictures, sounds=[("pcm_s16le", tone(seconds))], set_up=tags)


def bar_colours(picture: np.ndarray) -> np.ndarray:
    """The middle of each of the eight bars of a picture [h w 3]."""
    width = picture.shape[1] // len(BARS)
    middles = (np.arange(len(BARS)) + 0.5) * width
    rows = slice(picture.shape[0] // 4, 3 * picture.shape[0] // 4)
    return np.array(
        [np.median(picture[rows, int(m) - 2 : int(m) + 2], axis=(0, 1)) for m in middles]
    )


def fields(count: int, size: tuple[int, int] = (64, 96)) -> list[av.VideoFrame]:
    """Interlaced frames, top field first: a bar that moves 3 pixels from field to field."""
    frames = []
    for index in range(count):
        picture = np.full((*size, 3), 40, np.uint8)
        for field in (0, 1):
            at = 3 * (2 * index + field) % (size[1] - 16)
            picture[field::2, at : at + 16] = 210
        frames.append(
            av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
        )
    return [flagged(frame) for frame in frames]


def flagged(frame: av.VideoFrame) -> av.VideoFrame:
    """The frame with the flag of interlaced frames, top field first."""
    graph = Graph()
    frame.pts, frame.time_base = 0, Fraction(1, FPS)
    template: Any = frame
    nodes = (graph.add_buffer(template=template), graph.add("setfield", "tff"))
    graph.link_nodes(*nodes, graph.add("buffersink")).configure()
    graph.vpush(frame)
    return graph.vpull()


def write_interlaced(path: Path, pictures: Sequence[av.VideoFrame], seconds: float) -> Path:
    """An MP4 of interlaced H.264."""
    options = {"flags": "+ildct+ilme", "x264-params": "tff=1", "crf": "4", "preset": "veryfast"}
    return write_film(
        path,
        pictures,
        form="mp4",
        codec="libx264",
        options=options,
        sounds=[("aac", tone(seconds))],
    )
