# SPDX-License-Identifier: Apache-2.0
"""Atomic intermediate files, one per input, that let an interrupted `prepare` resume.

A piece is an array_record file of clips as raw bytes. A JSON note beside it is written last and
records how many clips the input gave and what went wrong, if anything.
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
from mmdisco_jax.media.isolation import WorkError, alarm_paused

_WRITER_OPTIONS = "group_size:1,uncompressed"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Piece:
    """Result of cutting one input.

    Attributes:
      path: the array_record file.
      num_clips: number of clips in it.
      problem: "corrupt" or "short" if that ended the cutting, else "".
      reason: the problem in words.
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
    heartbeat: Callable[[], None],
) -> Piece:
    """Cuts one input into a piece; arguments as for `iter_windows`.

    A damaged input gives a piece with the clips before the damage. Raises WorkError if the piece
    cannot be written.
    """
    temporary = f"{piece_path}.{os.getpid()}.part"
    count, problem, reason = 0, "", ""
    windows = _windows(path, sound_path, spec, part, heartbeat)
    with _reraise_as_work_error(piece_path):
        writer = ArrayRecordWriter(temporary, _WRITER_OPTIONS)
    while True:
        try:
            window = next(windows, None)
        except MediaError as error:
            problem, reason = "corrupt", _message(error)
            break
        if window is None:
            break
        with _reraise_as_work_error(piece_path):
            writer.write(_pack(window))
        count += 1
    if not count and not problem:
        problem = "short"
        reason = f"sound and picture together are shorter than one clip of {spec.clip_seconds} s"
    made = Piece(path=piece_path, num_clips=count, problem=problem, reason=reason)
    with _reraise_as_work_error(piece_path), alarm_paused():
        writer.close()
        rename_durably(temporary, piece_path)
        return _write_note(made)


def _windows(
    path: str, sound_path: str | None, spec: ClipSpec, part: Part, heartbeat: Callable[[], None]
) -> Iterator[Window]:
    """Iterates as `iter_windows`, and converts every exception of the decoder into MediaError."""
    for name in (path, sound_path):
        if name is not None and not os.path.isfile(name):
            raise MediaError(f"{name}: is missing, or not a file; leave it out.")
    try:
        # One thread, because the result of decoding damage depends on the number of threads.
        yield from iter_windows(
            path, spec, part, sound_path=sound_path, heartbeat=heartbeat, threads=1
        )
    except MediaError:
        raise
    except Exception as error:
        raise MediaError(f"{path}: cannot be decoded ({type(error).__name__}: {error}).") from error


def _message(error: Exception) -> str:
    """The error's message; bytes of a file name that are not UTF-8 are escaped."""
    return str(error).encode("utf-8", "backslashreplace").decode()


@contextlib.contextmanager
def _reraise_as_work_error(path: str) -> Iterator[None]:
    """Turns a failure to write into a WorkError, which stops the run and blames no input."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # array_record raises the latter
        raise WorkError(
            f"cannot write {path}: {error}. Free disk space, or choose another data_dir; then run "
            "again to resume."
        ) from error


def write_failed_piece(piece_path: str, reason: str) -> Piece:
    """Writes the note of an input whose worker died; its piece has no clips."""
    return _write_note(Piece(path=piece_path, num_clips=0, problem="corrupt", reason=reason))


def read_finished_piece(piece_path: str) -> Piece | None:
    """Reads the piece of an earlier run; None if it is missing, or torn by a power failure."""
    try:
        note = json.loads(Path(f"{piece_path}.json").read_text())
        piece = Piece(**note | {"path": piece_path})
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return piece if not piece.num_clips or num_records(piece_path) == piece.num_clips else None


def read_piece(piece: Piece, spec: ClipSpec, first: int, last: int) -> Iterator[Window]:
    """Yields the clips first..last-1 of a piece, in order."""
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


def _write_note(piece: Piece) -> Piece:
    temporary = f"{piece.path}.json.{os.getpid()}.part"
    Path(temporary).write_text(json.dumps(dataclasses.asdict(piece)))
    rename_durably(temporary, f"{piece.path}.json")
    return piece
