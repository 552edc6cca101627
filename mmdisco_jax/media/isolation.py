# SPDX-License-Identifier: Apache-2.0
"""Decoding of untrusted media in disposable worker processes with memory and time limits.

A damaged file can make a decoder crash, hang or ask for all memory. Each worker process therefore
has a memory limit and an alarm that kills it when it has sent no heartbeat for a while. When a
worker dies, its file fails with a reason and a new worker takes its place.

Each worker has its own pipe, so the parent knows which job died with it. Pools that share one queue
(concurrent.futures, pebble) break or wait for ever if a worker dies early enough.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import resource
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import connection
from typing import Any

from mmdisco_jax.checks import require_at_least

# A file that yields no frame and no packet for this long counts as hanging.
PATIENCE_SECONDS = 20.0
# A few times the resident memory, because libraries and thread stacks count as address space.
ADDRESS_SPACE_BYTES = 6 << 30
# Decoders leak memory on damaged files; a worker is replaced before that adds up.
_JOBS_PER_WORKER = 200
_FAILED_STARTS = 3
# No file can cause these signals, so the job is tried a second time.
_SENT_BY_OTHERS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@dataclasses.dataclass(frozen=True)
class Failure:
    """Reason why a job has no result: its function raised, or its worker died."""

    reason: str


class WorkError(OSError):
    """Raised when the work cannot continue for a reason that lies in no file; names the remedy."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of a worker: seconds between two heartbeats, and bytes of address space."""

    patience_seconds: float = PATIENCE_SECONDS
    address_space_bytes: int = ADDRESS_SPACE_BYTES


def isolated_map(
    function: Callable[..., Any],
    jobs: Iterable[tuple],
    *,
    num_workers: int,
    limits: Limits = Limits(),
) -> Iterator[tuple[int, Any]]:
    """Maps a function over jobs in worker processes that may crash, hang or run out of memory.

    Args:
      function: importable by name, with picklable results. It must call `heartbeat` at least every
        few seconds. Its exceptions become Failures too, except WorkError.
      jobs: tuples of arguments; consumed only a little ahead of the results.
      num_workers: number of processes, >= 1.
      limits: limits of each worker.

    Yields:
      (index of the job, function(*job) or a Failure), in the order of the jobs.

    Raises:
      ValueError: `num_workers` is below 1.
      WorkError: `function` raised it, or workers cannot be started.
    """
    require_at_least(1, num_workers=num_workers)
    pool = _Pool(function, jobs, num_workers, limits)
    try:
        yield from pool.results()
    finally:
        pool.end()


# The next two functions are called by the code that runs in workers.

_parent: int | None = None
_patience = PATIENCE_SECONDS


def heartbeat() -> None:
    """Restarts the alarm of this worker; call it from workers only.

    It also ends a worker whose parent was killed, which would otherwise keep working beside the
    next run.
    """
    if os.getppid() != _parent:
        os._exit(1)
    signal.setitimer(signal.ITIMER_REAL, _patience)


@contextlib.contextmanager
def alarm_paused() -> Iterator[None]:
    """Context in which no alarm can fire; for writing, because a slow disk is not a hang."""
    if _parent is None:  # this process is not a worker
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    yield
    heartbeat()


class _Worker:
    """A worker process, its pipe, and the index of its current job."""

    def __init__(self, function: Callable[..., Any], limits: Limits):
        context = multiprocessing.get_context("spawn")  # JAX's threads do not survive a fork
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, function, limits), daemon=True)
        self.process.start()
        theirs.close()  # only the worker holds it now, so its death closes the pipe
        self.job: int | None = None
        self.ready, self.jobs_left = False, _JOBS_PER_WORKER

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def exit_code(self) -> int:
        """Exit code of a worker that has closed its pipe."""
        self.process.join(5.0)
        if self.process.exitcode is None:
            self.end()
        return self.process.exitcode or 0


class _Pool:
    """Workers, their jobs, and results that wait until earlier ones are done."""

    def __init__(self, function: Any, jobs: Iterable[tuple], num_workers: int, limits: Limits):
        self._function, self._num_workers, self._limits = function, num_workers, limits
        self._unstarted = enumerate(jobs)
        self._requeued: deque[int] = deque()
        self._jobs: dict[int, tuple] = {}  # started, not yet done
        self._done: dict[int, Any] = {}
        self._next = 0  # index of the next result to yield
        self._workers: list[_Worker] = []
        self._failed_starts, self._retried = 0, set()

    def results(self) -> Iterator[tuple[int, Any]]:
        while self._assign_jobs():
            busy: dict[Any, _Worker] = {
                worker.pipe: worker for worker in self._workers if worker.job is not None
            }
            for pipe in connection.wait(list(busy)):
                self._receive(busy[pipe])
            while self._next in self._done:
                yield self._next, self._done.pop(self._next)
                self._next += 1

    def end(self) -> None:
        for worker in self._workers:
            worker.end()

    def _assign_jobs(self) -> bool:
        """Gives a job to every idle worker; returns whether any job is unfinished."""
        while len(self._jobs) - len(self._requeued) < self._num_workers:
            index = self._next_job()
            if index is None:
                break
            worker = next((w for w in self._workers if w.job is None), None)
            if worker is None:
                worker = _Worker(self._function, self._limits)
                self._workers.append(worker)
            worker.job = index
            try:
                worker.pipe.send(self._jobs[index])
            except OSError:  # it died before the job reached it
                self._handle_death(worker, had_begun=False)
        return bool(self._jobs)

    def _next_job(self) -> int | None:
        """The index of the next job; None if there is none, or too many results are waiting."""
        if self._requeued:
            return self._requeued.popleft()
        if len(self._done) + len(self._jobs) >= 4 * self._num_workers:
            return None
        index, job = next(self._unstarted, (None, ()))
        if index is not None:
            self._jobs[index] = job
        return index

    def _receive(self, worker: _Worker) -> None:
        try:
            kind, content = worker.pipe.recv()
        except (EOFError, OSError):
            self._handle_death(worker)
            return
        if kind == "ready":
            worker.ready, self._failed_starts = True, 0
            return
        if kind == "stop":
            raise WorkError(content)
        assert worker.job is not None
        self._finish(worker.job, content)
        worker.job, worker.jobs_left = None, worker.jobs_left - 1
        if not worker.jobs_left:
            self._workers.remove(worker)
            worker.end()

    def _handle_death(self, worker: _Worker, *, had_begun: bool = True) -> None:
        """Fails the job of a worker that died, or requeues it if the job was not the cause."""
        code, index = worker.exit_code(), worker.job
        self._workers.remove(worker)
        worker.pipe.close()
        assert index is not None
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= _FAILED_STARTS:
                raise WorkError(
                    f"worker processes cannot start ({_cause(code, self._limits)}). A script that "
                    "prepares must be a file, and begin under `if __name__ == '__main__':`; free "
                    "memory if it is short, and run again to resume."
                )
            self._requeued.append(index)
        elif not had_begun:
            self._requeued.append(index)
        elif -code in _SENT_BY_OTHERS and index not in self._retried:
            self._retried.add(index)
            self._requeued.append(index)
        else:
            self._finish(index, Failure(_cause(code, self._limits)))

    def _finish(self, index: int, result: Any) -> None:
        del self._jobs[index]
        self._retried.discard(index)
        self._done[index] = result


def _serve(pipe: Any, function: Callable[..., Any], limits: Limits) -> None:
    """Main function of a worker; returns when its parent closes the pipe or dies."""
    _limit(limits)
    with contextlib.suppress(EOFError, OSError):
        pipe.send(("ready", None))
        while True:
            answer = _run(function, pipe.recv(), limits)
            try:
                pipe.send(answer)
            except (AttributeError, MemoryError, TypeError, ValueError) as error:  # not picklable
                pipe.send(("done", Failure(str(error) or type(error).__name__)))


def _limit(limits: Limits) -> None:
    global _parent, _patience
    _parent, _patience = os.getppid(), limits.patience_seconds
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    wanted = limits.address_space_bytes
    size = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when workers stop
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # kills the process even inside a decoder
    os.nice(1)


def _run(function: Callable[..., Any], job: tuple, limits: Limits) -> tuple[str, Any]:
    heartbeat()
    try:
        return "done", function(*job)
    except WorkError as error:
        return "stop", str(error)
    except MemoryError:
        gib = limits.address_space_bytes / 2**30
        return "done", Failure(f"needs more memory than the {gib:.3g} GiB it may have")
    except Exception as error:
        return "done", Failure(str(error) or type(error).__name__)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)


def _cause(code: int, limits: Limits) -> str:
    """Describes why a process ended with exit code `code`."""
    if -code == signal.SIGALRM:
        return f"decoding hangs: nothing came for {limits.patience_seconds:g} s"
    if -code == signal.SIGKILL:
        return "decoding was killed, by the system for want of memory or by a person"
    names = {-s.value: s.name for s in signal.Signals}
    return f"decoding crashes the decoder ({names.get(code, f'exit status {code}')})"
