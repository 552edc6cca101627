# SPDX-License-Identifier: Apache-2.0
"""Several processes of one run end together: one waits for another, and an error stops all.

JAX's own barrier at the exit gives up after five minutes, and a process that waits in a collective
for one that has failed waits for ever. Here each process tells the others through the key-value
store of JAX's coordination service that it has ended, or why it failed. With one process, all of
this is nothing.
"""

import atexit
import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
from jax._src.distributed import global_state

# So long a process has to end by itself after another has failed; one in a collective cannot.
GRACE_SECONDS = 20.0
_POLL_SECONDS = 0.5
_REACTION_SECONDS = 5.0
_FAILED, _ENDED, _STOPPED = "failed", "ended", "stopped"
_ROOT = "mmdisco_jax"
_runs, _barriers = itertools.count(), itertools.count()
_current: "_Run | None" = None


class OtherProcessError(RuntimeError):
    """Raised when another process of the run has failed; names the process and its error."""


@contextlib.contextmanager
def together(*, grace_seconds: float = GRACE_SECONDS) -> Iterator[None]:
    """Context of what all processes do; they leave it together, whatever the time of each.

    An exception in one process is told to the others, whose own body is then interrupted as by
    Ctrl-C. A process that cannot be interrupted, as it waits in a collective, exits with status 1
    after `grace_seconds`. Files are safe: they are written as a whole or not at all.

    Enter it on the main thread, in every process.

    Raises:
      OtherProcessError: another process failed.
    """
    global _current
    if jax.process_count() == 1:
        yield
        return
    before, run = _current, _Run(f"{_ROOT}/{next(_runs)}", grace_seconds)
    _current = run
    try:
        with run:
            yield
    finally:
        _current = before


def wait(what: str) -> None:
    """Waits until every process is here, without a limit of time; at once with one process.

    Args:
      what: what is waited for, such as "all shards are written".

    Raises:
      OtherProcessError: another process failed.
    """
    if jax.process_count() == 1:
        return
    run = _current or _Run(_ROOT, GRACE_SECONDS)
    name = f"at_{next(run.barriers if _current else _barriers)}"
    run.tell(name, what)
    run.wait_for((name,), what)


class _Run:
    """One `together`: what each process has told, and a thread that listens for failures."""

    def __init__(self, prefix: str, grace_seconds: float):
        self.barriers = itertools.count()
        self._prefix, self._grace = prefix, grace_seconds
        self._me, self._count = jax.process_index(), jax.process_count()
        self._left, self._failure = threading.Event(), ""
        self._listener = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> None:
        self._listener.start()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            if error is None or isinstance(error, SystemExit):
                self.tell(_ENDED)
                self.wait_for((_ENDED,), "the end of the run")
        except (KeyboardInterrupt, OtherProcessError) as interrupted:
            error = interrupted
            raise self._named(error) from None
        else:
            if error is not None and self._named(error) is not error:
                error = self._named(error)
                raise error from None
        finally:
            self._left.set()
            if error is not None and not isinstance(error, SystemExit):
                self._stop(error)

    def _named(self, error: BaseException) -> BaseException:
        """The failure of another process, where it is the reason of an interruption here."""
        if self._failure and isinstance(error, KeyboardInterrupt):
            return OtherProcessError(self._failure)
        return error

    def _stop(self, error: BaseException) -> None:
        """Tells why this process stops, and gives the others the time to hear it."""
        atexit.register(_leave, self._grace, self._me)  # runs before JAX's own
        if isinstance(error, OtherProcessError) or self._failure:
            self.tell(_STOPPED)
            return
        self.tell(_FAILED, f"{type(error).__name__}: {error}" if str(error) else repr(error))
        limit = self._grace + _REACTION_SECONDS
        with contextlib.suppress(Exception):
            self.wait_for((_FAILED, _STOPPED), "their end", limit_seconds=limit)

    def tell(self, name: str, value: str = "") -> None:
        """Publishes a value of this process."""
        _client().key_value_set(f"{self._prefix}/{name}/{self._me}", value, allow_overwrite=True)

    def wait_for(
        self, names: tuple[str, ...], what: str, *, limit_seconds: float | None = None
    ) -> None:
        """Returns once every process has told one of the names, or after the limit."""
        start, shown = time.monotonic(), False
        while True:
            missing = sorted(set(range(self._count)).difference(*map(self._told, names)))
            waited = time.monotonic() - start
            if not missing or (limit_seconds is not None and waited > limit_seconds):
                return
            if _FAILED not in names and (failure := self._failed()):
                raise OtherProcessError(failure)
            if waited > 30 and not shown:
                print(f"waiting for processes {missing}: {what}", file=sys.stderr)
                shown = True
            time.sleep(_POLL_SECONDS)

    def _told(self, name: str) -> dict[int, str]:
        pairs = _client().key_value_dir_get(f"{self._prefix}/{name}/")
        return {int(key.rsplit("/", 1)[1]): value for key, value in pairs}

    def _failed(self) -> str:
        """The failure of another process as a sentence; "" if there is none."""
        others = {i: text for i, text in self._told(_FAILED).items() if i != self._me}
        if not others:
            return ""
        first = min(others)
        return f"process {first} of {self._count} stopped with {others[first]}"

    def _listen(self) -> None:
        while not self._left.wait(_POLL_SECONDS):
            try:
                self._failure = self._failed()
            except Exception:  # the coordination service has ended, and JAX tells so
                return
            if not self._failure:
                continue
            os.kill(os.getpid(), signal.SIGINT)
            if not self._left.wait(self._grace):
                print(f"error: {self._failure}", file=sys.stderr)
                self.tell(_STOPPED)
                _exit(1)
            return


def _client() -> Any:
    """The client of JAX's coordination service, whose key-value store has no public interface."""
    if global_state.client is None:
        raise RuntimeError(
            "JAX counts several processes, but they have not joined: call cluster.join() before "
            "anything else touches JAX."
        )
    return global_state.client


def _leave(seconds: float, index: int) -> None:
    """Leaves the coordination service, or without it the process, at the exit after a failure.

    JAX's barrier at the exit waits minutes for processes that never reach it.
    """

    def shutdown() -> None:
        with contextlib.suppress(Exception):
            jax.distributed.shutdown()

    leaving = threading.Thread(target=shutdown, daemon=True)
    leaving.start()
    # Process 0 holds the service, and leaves last.
    leaving.join(seconds if index else seconds + _REACTION_SECONDS)
    if leaving.is_alive():
        _exit(1)


def _exit(status: int) -> None:
    """Ends the process at once, and the workers that it started."""
    for child in multiprocessing.active_children():
        child.kill()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
