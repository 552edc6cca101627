# SPDX-License-Identifier: Apache-2.0
"""A folder of half-done work: one process at a time uses it, and it goes when the work is done."""

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
    """Holds the lock of `folder`, made if it is missing; waits for whoever holds it.

    The system releases it when the process ends, however it ends.
    """
    while (lock := _lock(folder)) is None:
        pass
    try:
        yield
    finally:
        os.close(lock)


def claim(folder: Path, user: str) -> None:
    """Notes that `user` works here, as others may go on with the same work. Needs the lock."""
    (folder / f"{_USER_PREFIX}{user}").touch()


def discard(folder: Path) -> None:
    """Removes the folder. Needs the lock."""
    # Out of the way first, in one step: a worker whose parent was killed may still write to it.
    folder.rename(folder.with_name(f"{folder.name}.old.{os.getpid()}"))
    _sweep(folder)


def discard_if_last(folder: Path, user: str) -> None:
    """Removes what `user` left when it was killed as it had just finished."""
    _sweep(folder)
    if folder.exists() and _users(folder) <= {user}:
        with locked(folder):
            if _users(folder) <= {user}:
                discard(folder)


def require_space(folder: Path, num_bytes: int) -> None:
    """Raises OSError unless `folder`, with what lies in it, can grow to `num_bytes`."""
    has = sum(path.stat().st_size for path in folder.iterdir())
    free = shutil.disk_usage(folder).free
    if num_bytes > has + free:
        raise OSError(
            f"{folder} needs {num_bytes / 1e9:.1f} GB for clips, and {(has + free) / 1e9:.1f} GB "
            "are free. Free disk space, choose another data_dir, fewer files or smaller clips; "
            "then run again to go on."
        )


def _lock(folder: Path) -> int | None:
    """The handle of the lock file, or None if the folder was removed in the meantime."""
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
