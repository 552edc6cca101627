# SPDX-License-Identifier: Apache-2.0
"""Atomic file writes: a reader sees the old file or the new one, never a part of one."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


class WriteError(OSError):
    """A file could not be written; nothing of it is left. Names the path and the remedy."""


@contextlib.contextmanager
def replacing(
    path: str | os.PathLike[str], *, failures: tuple[type[Exception], ...] = ()
) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path`, renamed to `path` once the body succeeds.

    The rename replaces a file already at `path` in one step, so a reader sees the old file or the
    new one. Missing parent folders are made. On any exception, an interrupt included, the
    temporary file is removed and `path` is as it was.

    Args:
      path: the file to write.
      failures: the writer's own exception types that mean the file could not be written, beside
        OSError.

    Raises:
      WriteError: for OSError and `failures`.
    """
    target = Path(path)
    # In the same folder: a rename across file systems would copy, and not be atomic.
    temporary = target.parent / f".{uuid.uuid4().hex}.part"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())  # some file systems report a full disk only here
        temporary.replace(target)
    except (OSError, *failures) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise WriteError(
            getattr(error, "errno", None) or 0,
            f"could not write {target}: {reason}. Nothing was left behind; free disk space, "
            "check that the folder is writable, or choose another output folder, and run again",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes `data` to `path` as a whole or not at all; see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def num_records(path: str | os.PathLike[str]) -> int:
    """The number of records in the file; 0 for one that is missing, or torn by a power failure."""
    from array_record.python.array_record_module import ArrayRecordReader  # slow to import

    try:
        reader = ArrayRecordReader(str(path))
        count = reader.num_records()
        reader.close()  # a torn file may be told only here
        return count
    except RuntimeError:
        return 0


def rename_durably(temporary: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """A rename that is on the disk at the return, and so is all that was renamed before it."""
    _sync(temporary)
    os.replace(temporary, path)
    _sync(os.path.dirname(path) or ".")


def _sync(path: str | os.PathLike[str]) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
