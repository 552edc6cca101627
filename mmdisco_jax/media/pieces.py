# SPDX-License-Identifier: Apache-2.0
"""The clips of one input, in one file that is whole or absent: what a killed run goes on from.

A piece is an array_record of clips as raw bytes; beside it lies a note in JSON with what came of
the input, written last.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from mmdisco_jax.io import num_records, rename_durably
from mmdisco_jax.media.cutting import ClipSpec, MediaError, Part, Window, iter_windows
from mmdisco_jax.media.isolation import WorkError, unhurried

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
) -> Piece:
    """Cuts one input into a piece. Raises WorkError if the piece cannot be written."""
    temporary = f"{piece_path}.{os.getpid()}.part"
    count, problem, reason = 0, "", ""
    windows = _windows(path, sound_path, spec, part, alive)
    with _disk_to_blame(piece_path):
        writer = ArrayRecordWriter(temporary, _WRITER_OPTIONS)
    while True:
        try:
            window = next(windows, None)
        except MediaError as error:
            problem, reason = "corrupt", _text(error)
            break
        if window is None:
            break
        with _disk_to_blame(piece_path):
            writer.write(_pack(window))
        count += 1
    if not count and not problem:
        problem = "short"
        reason = f"sound and picture together are shorter than one clip of {spec.clip_seconds} s"
    made = Piece(path=piece_path, num_clips=count, problem=problem, reason=reason)
    with _disk_to_blame(piece_path), unhurried():
        writer.close()
        rename_durably(temporary, piece_path)
        return _note(made)


def _windows(
    path: str, sound_path: str | None, spec: ClipSpec, part: Part, alive: Callable[[], None]
) -> Iterator[Window]:
    """As `iter_windows`; whatever the decoder raises is a MediaError."""
    for name in (path, sound_path):
        if name is not None and not os.path.isfile(name):
            raise MediaError(f"{name}: is missing, or not a file; leave it out.")
    try:
        # One thread: with several, what a decoder makes of damage depends on their number.
        yield from iter_windows(path, spec, part, sound_path=sound_path, alive=alive, threads=1)
    except MediaError:
        raise
    except Exception as error:
        raise MediaError(f"{path}: cannot be decoded ({type(error).__name__}: {error}).") from error


def _text(error: Exception) -> str:
    """Its message, without the odd bytes that a file's name may have."""
    return str(error).encode("utf-8", "backslashreplace").decode()


@contextlib.contextmanager
def _disk_to_blame(path: str) -> Iterator[None]:
    """A failure inside is one of writing, for which no input is to blame."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # the latter is array_record's
        raise WorkError(
            f"cannot write {path}: {error}. Free disk space, or choose another data_dir; then run "
            "again to go on."
        ) from error


def failed(piece_path: str, reason: str) -> Piece:
    """The note of an input whose worker died; without any clip."""
    return _note(Piece(path=piece_path, num_clips=0, problem="corrupt", reason=reason))


def read_note(piece_path: str) -> Piece | None:
    """The piece that is already there, or None; a torn one, after a power failure, is none."""
    try:
        note = json.loads(Path(f"{piece_path}.json").read_text())
        piece = Piece(**note | {"path": piece_path})
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return piece if not piece.num_clips or num_records(piece_path) == piece.num_clips else None


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


def _note(piece: Piece) -> Piece:
    temporary = f"{piece.path}.json.{os.getpid()}.part"
    Path(temporary).write_text(json.dumps(dataclasses.asdict(piece)))
    rename_durably(temporary, f"{piece.path}.json")
    return piece
