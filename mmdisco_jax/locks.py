# SPDX-License-Identifier: Apache-2.0
"""Lock of a folder that ends with its process, however it ends; one owner of a workdir at a time.

The lock is the operating system's own, on the file `.lock` in the folder (flock). A process that is
killed leaves the file and no lock. The file says who holds it, for the error of a second run. A
workdir's is removed at the end of its mode.
"""

import contextlib
import errno
import fcntl
import functools
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from mmdisco_jax.io import require_local

LOCK_FILE = ".lock"
# What file systems without such locks answer.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class InUseError(OSError):
    """Raised when another run owns a folder; names its process, computer and mode."""


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = True, purpose: str = "") -> Iterator[None]:
    """Context that holds the lock of `folder`, which is made if it is missing.

    Args:
      wait: until its present holder ends; without it, a lock that is held is an error.
      purpose: what it is held for, for the error of others.

    Raises:
      InUseError: another process, or another thread of this one, holds it.
    """
    require_local({"folder": folder}, purpose or "mmdisco_jax")
    while (lock := _lock(folder, wait)) is None:
        pass
    try:
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "purpose": purpose}
        owner["since"] = time.strftime("%Y-%m-%d %H:%M:%S")
        os.ftruncate(lock, 0)
        os.pwrite(lock, json.dumps(owner).encode(), 0)
        yield
    finally:
        # Who opened the file meanwhile finds that it is gone, and makes another. Those that wait
        # for a folder may have moved it; their file stays.
        if not wait:
            with contextlib.suppress(OSError):
                (folder / LOCK_FILE).unlink()
        os.close(lock)


def one_owner(mode: Callable[[Any, Path], None]) -> Callable[[Any, Path], None]:
    """Decorator of a mode `run(system, workdir)`, which owns its workdir while it runs.

    Two runs in one workdir would mix their metrics, checkpoints and samples. Of several processes
    of one run the first holds the lock. Where the file system has no locks, a line says so.

    Raises:
      InUseError: another run is at work in the workdir.
    """

    @functools.wraps(mode)
    def run(system: Any, workdir: Path) -> None:
        if jax.process_index():
            return mode(system, workdir)
        lock = locked(Path(workdir), wait=False, purpose=mode.__module__.rpartition(".")[2])
        try:
            lock.__enter__()
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            print(
                f"{workdir} is on a file system without locks ({error.strerror}): make sure that "
                "no other run works there.",
                file=sys.stderr,
            )
            return mode(system, workdir)
        try:
            return mode(system, workdir)
        finally:
            lock.__exit__(None, None, None)

    return run


def _lock(folder: Path, wait: bool) -> int | None:
    """Locks the folder; returns the lock file's handle, or None if the folder was just removed."""
    path = folder / LOCK_FILE
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), path.stat()):
            return lock
    except FileNotFoundError:
        pass
    except BlockingIOError as error:
        holder = _holder(lock)
        os.close(lock)
        raise InUseError(
            f"{folder} is in use: {holder} works there. Wait for its end, stop it, or choose "
            "another folder."
        ) from error
    except OSError:
        os.close(lock)
        raise
    os.close(lock)
    return None


def _holder(lock: int) -> str:
    """Who holds a lock, by the note in its file."""
    try:
        owner = json.loads(os.pread(lock, 4096, 0))
        mode = f"`{owner['purpose']}`, " if owner["purpose"] else ""
        return f"{mode}process {owner['pid']} on {owner['host']} since {owner['since']},"
    except (ValueError, KeyError, TypeError):
        return "another process"  # which has not written the note yet
