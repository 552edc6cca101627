# SPDX-License-Identifier: Apache-2.0
"""Locked folder of unfinished work, removed when the work is done."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOCK_FILE = ".lock"
_USER_PREFIX = "user."


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Context that holds the lock of `folder`, after waiting for its present holder.

    Makes the folder if it is missing. The system releases the lock whenever the process ends, even
    when it is killed.
    """
    while (lock := _lock(folder)) is None:
        pass
    try:
        yield
    finally:
        os.close(lock)


def claim(folder: Path, user: str) -> None:
    """Records that `user` needs this folder; several datasets may share it. Requires the lock."""
    (folder / f"{_USER_PREFIX}{user}").touch()


def discard(folder: Path) -> None:
    """Removes the folder. Requires the lock."""
    # Renamed first, because a worker whose parent was killed may still be writing to it.
    folder.rename(folder.with_name(f"{folder.name}.old.{os.getpid()}"))
    _sweep(folder)


def discard_if_last(folder: Path, user: str) -> None:
    """Removes a folder that only `user` needs, as a run killed at its very end leaves it."""
    _sweep(folder)
    if folder.exists() and _users(folder) <= {user}:
        with locked(folder):
            if _users(folder) <= {user}:
                discard(folder)


def require_space(folder: Path, num_bytes: int) -> None:
    """Raises OSError unless the disk has room for `folder` to grow to `num_bytes` in all."""
    has = sum(path.stat().st_size for path in folder.iterdir())
    free = shutil.disk_usage(folder).free
    if num_bytes > has + free:
        raise OSError(
            f"{folder} needs {num_bytes / 1e9:.1f} GB for clips, and {(has + free) / 1e9:.1f} GB "
            "are free. Free disk space, choose another data_dir, fewer files or smaller clips; "
            "then run again to resume."
        )


def _lock(folder: Path) -> int | None:
    """Locks the folder; returns the lock file's handle, or None if the folder was just removed."""
    path = folder / _LOCK_FILE
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except FileNotFoundError:
        return None
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        if os.path.samestat(os.fstat(lock), path.stat()):
            return lock
    except FileNotFoundError:
        pass
    os.close(lock)
    return None


def _users(folder: Path) -> set[str]:
    return {path.name[len(_USER_PREFIX) :] for path in folder.glob(f"{_USER_PREFIX}*")}


def _sweep(folder: Path) -> None:
    for old in folder.parent.glob(f"{folder.name}.old.*"):
        shutil.rmtree(old, ignore_errors=True)
