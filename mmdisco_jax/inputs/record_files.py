# SPDX-License-Identifier: Apache-2.0
"""Array_record files that are whole or absent, whatever ends the process or the machine."""

import os

from array_record.python.array_record_module import ArrayRecordReader


def num_records(path: str | os.PathLike[str]) -> int:
    """The number of records in the file; 0 for one that is missing, or torn by a power failure."""
    try:
        reader = ArrayRecordReader(str(path))
        count = reader.num_records()
        reader.close()  # a torn file may be told only here
        return count
    except RuntimeError:
        return 0


def replace(temporary: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
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
