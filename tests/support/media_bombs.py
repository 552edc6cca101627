# SPDX-License-Identifier: Apache-2.0
"""Small files that ask for much: huge pictures, absurd rates, times that jump."""

import io
import struct
import zlib
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.container import Flags

from tests.support.media_seeds import SIZE

HUGE, LARGE = 16_000, 7_680  # pixels a side: beyond the limit, and just within it


def files(seeds: dict[str, bytes]) -> Iterator[tuple[str, str, bytes]]:
    """(kind, form, bytes)"""
    for side in (HUGE, LARGE):
        yield "huge picture", "mp4", png(side)
        yield "huge picture", "avi", jpegs(side)
        yield "huge picture", "gif", gif(side)
        yield "huge picture", "webm", vp9(seeds["webm"], side)
    yield "huge picture", "gif", gif(65_535)
    yield "huge picture", "webm", vp9(seeds["webm"], 65_536)
    for rate in (1, 100, 400_000_000, 2**32 - 1):
        yield "absurd rate", "avi", waves(rate_hz=rate)
    for channels in (9, 64, 255):
        yield "many channels", "avi", waves(channels=channels)
    for step in (1.0, 500.0, 700.0, 1e6):
        yield "times that jump", "mkv", slow(step)


def png(side: int) -> bytes:
    """One black picture: 16 000 pixels a side are 768 MB of RGB."""
    row, packer = bytes(1 + 3 * side), zlib.compressobj(1)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", packed), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def jpegs(side: int) -> bytes:
    """A film of small pictures that say they are huge."""
    data = bytearray(_film("avi", "mjpeg", "yuvj420p"))
    at = 0
    while (at := data.find(b"\xff\xc0\x00\x11\x08", at)) >= 0:
        data[at + 5 : at + 9] = struct.pack(">HH", side, side)
        at += 9
    return bytes(data)


def gif(side: int) -> bytes:
    """Ten pictures of one pixel on a huge screen."""
    data = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    control = b"\x21\xf9\x04\x04\x0a\x00\x00\x00"
    picture = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return data + 10 * (control + picture) + b";"


def vp9(seed: bytes, side: int) -> bytes:
    """The seed, whose key frames say that they are huge."""
    small = f"{(SIZE - 1) << 16 | SIZE - 1:032b}"
    bits = "".join(f"{byte:08b}" for byte in seed)
    huge = f"{side - 1:016b}" * 2
    sync = f"{0x498342:024b}"
    return _bytes(
        bits.replace(sync + "0010" + small, sync + "0010" + huge)
        .replace(sync + "0000" + small, sync + "0000" + huge)
        .replace(sync + "0100" + small, sync + "0100" + huge)
    )


def waves(*, rate_hz: int = 8_000, channels: int = 1) -> bytes:
    """A film with a second of PCM that claims another rate, or more channels than anyone hears."""
    data = bytearray(_film("avi", "mpeg4", "yuv420p", sound=True))
    at = data.index(b"strf", data.index(b"auds")) + 8
    struct.pack_into("<HI", data, at + 2, channels, rate_hz)
    struct.pack_into("<IH", data, at + 8, (rate_hz * 2 * channels) % 2**32, 2 * channels)
    at = data.index(b"auds") + 20
    struct.pack_into("<II", data, at, 1, rate_hz)
    return bytes(data)


def slow(step_seconds: float) -> bytes:
    """Pictures and sound that come `step_seconds` apart."""
    return _film("matroska", "ffv1", "yuv420p", sound=True, step_seconds=step_seconds)


def _film(
    form: str, codec: str, pixels: str, *, sound: bool = False, step_seconds: float = 0.1
) -> bytes:
    file, base = io.BytesIO(), Fraction(1, 1000)
    with av.open(file, "w", format=form) as container:
        container.flags |= Flags.bitexact.value  # Matroska's numbers are random else
        video: Any = container.add_stream(codec, rate=10)
        video.width = video.height = SIZE
        video.pix_fmt = pixels
        audio = container.add_stream("pcm_s16le", rate=8_000, layout="mono") if sound else None
        grey = np.full((SIZE, SIZE, 3), 90, np.uint8)
        for index in range(10):
            picture = av.VideoFrame.from_ndarray(grey, format="rgb24").reformat(format=pixels)
            picture.pts, picture.time_base = round(1000 * index * step_seconds), base
            if form == "avi":
                picture.pts, picture.time_base = index, Fraction(1, 10)
            container.mux(video.encode(picture))
            if audio is None:
                continue
            wave = np.full((1, 800), 1000, np.int16)
            frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
            frame.sample_rate, frame.time_base = 8_000, Fraction(1, 8_000)
            frame.pts = round(8_000 * index * step_seconds)
            container.mux(audio.encode(frame))
        container.mux(video.encode(None))
    return file.getvalue()


def _bytes(bits: str) -> bytes:
    return int(bits, 2).to_bytes(len(bits) // 8, "big")
