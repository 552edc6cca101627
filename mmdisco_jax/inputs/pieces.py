# SPDX-License-Identifier: Apache-2.0
"""The clips of one input, in one file that is whole or absent: what a killed run goes on from.

A piece is an array_record of clips as raw bytes; beside it lies a note in JSON with what came of
the input, written last.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from mmdisco_jax.inputs.media import ClipSpec, MediaError, Part, Window, iter_windows

_WRITER_OPTIONS = "group_size:1,uncompressed"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Piece:
    """What came of an input: `num_clips` in the file `path`, and the problem that ended it.

    problem: "" or "corrupt" or "short"; reason: in words.
    """

    path: str
    num_clips: int
    problem: str = ""
    reason: str = ""


def cut(
    path: str,
    sound_path: str | None,
    spec: ClipSpec,
    part: Part,
    piece_path: str,
    alive: Callable[[], None],
    threads: int,
) -> Piece:
    """Cuts one input into a piece; a note that is already there is taken as it is."""
    if (made := read_note(piece_path)) is not None:
        return made
    temporary = f"{piece_path}.{os.getpid()}.part"
    count, problem, reason = 0, "", ""
    writer = ArrayRecordWriter(temporary, _WRITER_OPTIONS)
    try:
        windows = iter_windows(
            path, spec, part, sound_path=sound_path, alive=alive, threads=threads
        )
        for window in windows:
            writer.write(_pack(window))
            count += 1
    except MediaError as error:
        problem, reason = "corrupt", str(error)
    finally:
        writer.close()
    if not count and not problem:
        problem = "short"
        reason = f"sound and picture together are shorter than one clip of {spec.clip_seconds} s"
    made = Piece(path=piece_path, num_clips=count, problem=problem, reason=reason)
    return _publish(made, temporary)


def failed(piece_path: str, reason: str) -> Piece:
    """The note of an input whose worker died; without any clip."""
    return _note(Piece(path=piece_path, num_clips=0, problem="corrupt", reason=reason))


def read_note(piece_path: str) -> Piece | None:
    """The piece that is already there, or None."""
    note = Path(f"{piece_path}.json")
    return Piece(**json.loads(note.read_text()) | {"path": piece_path}) if note.exists() else None


def read_piece(piece: Piece, spec: ClipSpec, first: int, last: int) -> Iterator[Window]:
    """The clips first..last-1 of a piece, in order."""
    reader = ArrayRecordReader(piece.path)
    try:
        for index in range(first, last):
            yield _unpack(reader.read([index])[0], spec)
    finally:
        reader.close()


def _pack(window: Window) -> bytes:
    start = np.float64(window.start_seconds).tobytes()
    return start + window.audio.tobytes() + window.video.tobytes()


def _unpack(record: bytes, spec: ClipSpec) -> Window:
    middle = 8 + 2 * int(np.prod(spec.audio_shape))
    return Window(
        start_seconds=float(np.frombuffer(record[:8], np.float64)[0]),
        audio=np.frombuffer(record[8:middle], np.int16).reshape(spec.audio_shape),
        video=np.frombuffer(record[middle:], np.uint8).reshape(spec.video_shape),
    )


def _publish(piece: Piece, temporary: str) -> Piece:
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, piece.path)
    return _note(piece)


def _note(piece: Piece) -> Piece:
    temporary = f"{piece.path}.json.{os.getpid()}.part"
    Path(temporary).write_text(json.dumps(dataclasses.asdict(piece)))
    os.replace(temporary, f"{piece.path}.json")
    return piece
