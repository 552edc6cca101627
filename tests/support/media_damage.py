# SPDX-License-Identifier: Apache-2.0
"""Some hundred damaged media files, always the same: what disks, networks and people do to them.

`write_damaged` also makes what is no media file at all: pipes, loops of links, playlists, texts.
`bombs` has the small files that ask for much.
"""

import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tests.support import media_bombs as bombs
from tests.support.media_seeds import FORMS, write_seed, write_sound

Change = Callable[[bytes, np.random.Generator], bytes]
_COPIES = {
    "truncated": 12,
    "bits flipped": 10,
    "bytes flipped": 8,
    "bytes flipped near the front": 8,
    "zeros": 4,
    "rubbish inserted": 4,
    "piece removed": 4,
    "piece repeated": 2,
}
_HEADER_BYTES = (1, 8, 64, 1024)


def write_damaged(folder: Path, scratch: Path) -> dict[str, str]:
    """Writes the files; returns {name: kind}. `scratch` is for the whole ones they come from."""
    folder.mkdir(parents=True, exist_ok=True)
    scratch.mkdir(parents=True, exist_ok=True)
    seeds = {form: write_seed(scratch / f"seed.{form}").read_bytes() for form in FORMS}
    kinds: dict[str, str] = {}

    def write(kind: str, form: str, data: bytes) -> None:
        name = f"{len(kinds):04d} {kind}.{form}"
        (folder / name).write_bytes(data)
        if form == "gif":
            write_sound((folder / name).with_suffix(".wav"))
        kinds[name] = kind

    for index, (form, data) in enumerate(seeds.items()):
        rng = np.random.default_rng(index)
        for kind, count in _COPIES.items():
            for copy in range(count):
                write(kind, form, _CHANGES[kind](data, rng, (copy + 0.5) / count))
        for count in _HEADER_BYTES:
            write("header zeroed", form, bytes(count) + data[count:])
        others = [other for other in FORMS if other != form]
        write("wrong extension", others[index % len(others)], data)
        write("one frame", form, _with_one_frame(scratch, form))
    for kind, form, data in [*_fields(seeds), *_texts(seeds), *bombs.files(seeds)]:
        write(kind, form, data)
    return kinds | _odd_things(folder, seeds["mp4"])


def _cut_short(data: bytes, rng: np.random.Generator, where: float) -> bytes:
    return data[: max(0, int(where * len(data)) + int(rng.integers(-16, 16)))]


def _flip(data: bytes, rng: np.random.Generator, *, count: int, mask: int, end: int) -> bytes:
    changed = np.frombuffer(data, np.uint8).copy()
    places = rng.integers(0, min(end, len(data)), count)
    changed[places] ^= (rng.integers(1, 256, count) & mask | mask & 1).astype(np.uint8)
    return changed.tobytes()


def _splice(data: bytes, rng: np.random.Generator, where: float, *, kind: str) -> bytes:
    start, size = int(where * len(data)), int(rng.integers(1, 3000))
    inside = {
        "zeros": (bytes(size), size),
        "rubbish inserted": (rng.integers(0, 256, size, np.uint8).tobytes(), 0),
        "piece removed": (b"", size),
        "piece repeated": (data[start : start + size], 0),
    }[kind]
    return data[:start] + inside[0] + data[start + inside[1] :]


_CHANGES: dict[str, Callable[[bytes, np.random.Generator, float], bytes]] = {
    "truncated": _cut_short,
    "bits flipped": lambda data, rng, where: _flip(
        data, rng, count=1 + int(8 * where), mask=1, end=len(data)
    ),
    "bytes flipped": lambda data, rng, where: _flip(
        data, rng, count=1 + int(500 * where**3), mask=255, end=len(data)
    ),
    "bytes flipped near the front": lambda data, rng, where: _flip(
        data, rng, count=1 + int(30 * where), mask=255, end=1500
    ),
    **{
        kind: lambda data, rng, where, kind=kind: _splice(data, rng, where, kind=kind)
        for kind in ("zeros", "rubbish inserted", "piece removed", "piece repeated")
    },
}


def _with_one_frame(scratch: Path, form: str) -> bytes:
    return write_seed(scratch / f"one.{form}", seconds=0.1).read_bytes()


def _fields(seeds: dict[str, bytes]) -> Iterator[tuple[str, str, bytes]]:
    """Numbers of headers, made absurd: (kind, form, bytes)."""
    # (form, bytes before the number, how far behind them, the number's format)
    places = [
        ("mp4", b"mvhd", 12, ">I"),  # ticks a second
        ("mp4", b"mvhd", 16, ">I"),  # duration
        ("mp4", b"tkhd", 76, ">I"),  # width
        ("mp4", b"tkhd", 80, ">I"),  # height
        ("mp4", b"mdhd", 12, ">I"),
        ("mp4", b"mdhd", 16, ">I"),
        ("mp4", b"stsd", 4, ">I"),  # how many entries follow
        ("mp4", b"avc1", 24, ">HH"),  # width and height
        ("mp4", b"mp4a", 16, ">H"),  # channels
        ("mp4", b"mp4a", 24, ">I"),  # samples a second
        ("mp4", b"stts", 4, ">I"),
        ("mp4", b"stts", 12, ">I"),  # ticks between frames
        ("mp4", b"stsz", 8, ">I"),
        ("mp4", b"stsz", 12, ">I"),  # size of a frame
        ("mp4", b"stco", 8, ">I"),  # where the frames lie
        ("mp4", b"elst", 8, ">I"),
        ("mp4", b"moov", -4, ">I"),  # size of the box
        ("mkv", b"\x2a\xd7\xb1\x83", 0, ">I"),  # nanoseconds in a tick
        ("mkv", b"\x44\x89\x88", 0, ">d"),  # duration
        ("mkv", b"\xb5\x88", 0, ">d"),  # samples a second
        ("mkv", b"\xb0\x81", 0, ">B"),  # width
        ("webm", b"\xb0\x81", -1, ">HH"),
        ("webm", b"\xb5\x88", 0, ">d"),
        ("webm", b"\x1f\x43\xb6\x75", 0, ">Q"),  # size of a cluster
        ("avi", b"avih", 4, "<I"),  # microseconds a frame
        ("avi", b"avih", 36, "<II"),  # width and height
        ("avi", b"strh", 24, "<I"),  # scale of the rate
        ("avi", b"strh", 28, "<I"),  # rate
        ("avi", b"vids", 40, "<I"),
        ("avi", b"auds", 24, "<I"),
        ("gif", b"GIF89a", 0, "<HH"),  # size of the screen
    ]
    for form, before, skip, layout in places:
        at = seeds[form].index(before) + len(before) + skip
        for value in (0, 1, 1e9, 2**31 - 1, -1):
            try:
                number = struct.pack(layout, *[_fitted(value, layout[-1])] * (len(layout) - 1))
            except struct.error:
                continue
            data = seeds[form]
            yield "absurd number", form, data[:at] + number + data[at + len(number) :]


def _fitted(value: float, letter: str) -> float | int:
    if letter == "d":
        return float(value) * 1e3
    return int(value) % 256 ** struct.calcsize(letter)


def _texts(seeds: dict[str, bytes]) -> Iterator[tuple[str, str, bytes]]:
    """Files that are no media, or name other files: (kind, form, bytes)."""
    yield "empty", "mp4", b""
    yield "empty", "gif", b""
    yield "text", "mp4", b"<html><body>404 Not Found</body></html>"
    yield "text", "mkv", b"\n" * 5000
    yield "zip", "webm", b"PK\x03\x04" + bytes(1000)
    yield "noise", "avi", np.random.default_rng(0).bytes(100_000)
    yield "no streams", "mp4", seeds["mp4"][: seeds["mp4"].index(b"moov") - 4]
    yield "no streams", "gif", b"GIF89a" + struct.pack("<HHBBB", 64, 64, 0, 0, 0) + b";"
    yield "no streams", "mkv", seeds["mkv"][: seeds["mkv"].index(b"\x16\x54\xae\x6b")]
    for line in ("0000 truncated.mp4", "/etc/passwd", "http://127.0.0.1:9/a.ts", "a.ts"):
        segment = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{line}\n#EXT-X-ENDLIST\n"
        yield "playlist", "ts", segment.encode()
        yield "playlist", "mp4", f"ffconcat version 1.0\nfile '{line}'\n".encode()
    yield "playlist", "mp4", b"v=0\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n"
    yield "playlist", "mp4", b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"/>'


def _odd_things(folder: Path, data: bytes) -> dict[str, str]:
    """Files with the name of a media file that are none."""
    kinds = {}
    os.mkfifo(folder / "odd pipe.mp4")
    (folder / "odd dangling.mp4").symlink_to("nowhere.mp4")
    (folder / "odd loop.mkv").symlink_to("odd loop.mkv")
    (folder / "odd device.avi").symlink_to("/dev/zero")
    (folder / "odd folder link.mp4").symlink_to(folder)
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(folder)  # the path of a socket must be short
        try:
            listening.bind("odd socket.ts")
        finally:
            os.chdir(here)
    for name in ("pipe.mp4", "dangling.mp4", "loop.mkv", "device.avi", "socket.ts"):
        kinds[f"odd {name}"] = "no file"
    if os.geteuid():
        (folder / "odd closed.mp4").write_bytes(data)
        (folder / "odd closed.mp4").chmod(0)
        kinds["odd closed.mp4"] = "no file"
    stems = ("new\nline", "%03d", "a" * 200, "ünïcode 音", "-i", "concat:x|y", "\udcff\udcfe")
    for number, stem in enumerate(stems, 1):
        # Whole, and with so many empty boxes that no two are the same.
        (folder / f"odd {stem}.mp4").write_bytes(data + number * b"\0\0\0\x08free")
        kinds[f"odd {stem}.mp4".replace("\udcff\udcfe", "\\xff\\xfe")] = "odd name"
    # A folder is no file: what lies in it counts.
    (folder / "odd folder.mp4").mkdir()
    (folder / "odd folder.mp4" / "in.mp4").write_bytes(data[:100])
    kinds["odd folder.mp4/in.mp4"] = "truncated"
    return kinds
