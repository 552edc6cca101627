# SPDX-License-Identifier: Apache-2.0
"""Work on files that nobody vouches for, in processes that may die without harm.

A damaged file can make a decoder crash, hang or ask for all memory. Each worker process has a
limit on its memory and an alarm clock that ends it when it has shown no sign of life for a while;
whatever ends a worker ends the file it was at, with a reason, and another worker takes its place.

Each worker has its own pipe, so the parent knows what it gave to whom: pools of processes that
share a queue (concurrent.futures, pebble) break or wait for ever when a worker dies early enough.
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

# Without a frame or a packet for so long, a file hangs.
PATIENCE_SECONDS = 20.0
# Of address space, a few times what is ever resident: libraries and thread stacks count as well.
ADDRESS_SPACE_BYTES = 6 << 30
# What decoders leak on damaged files, later ones must not pay for.
_JOBS_PER_WORKER = 200
_FAILED_STARTS = 3
# Nothing that a file does sends these: the job gets a second chance.
_SENT_BY_OTHERS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why there is no result: the worker raised, or died."""

    reason: str


class WorkError(OSError):
    """The work cannot go on, and no file is to blame; names the cause and the remedy."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """Of a worker: seconds without a sign of life, and bytes of address space."""

    patience_seconds: float = PATIENCE_SECONDS
    address_space_bytes: int = ADDRESS_SPACE_BYTES


def isolated_map(
    function: Callable[..., Any],
    jobs: Iterable[tuple],
    *,
    num_workers: int,
    limits: Limits = Limits(),
) -> Iterator[tuple[int, Any]]:
    """(index of the job, function(*job) or a Failure), in the order of the jobs.

    Args:
      function: importable by name, as its results must be picklable. It calls `alive` at least
        every few seconds; its own exceptions become Failures too, but for WorkError.
      jobs: arguments; read a few ahead of what is done.
      num_workers: processes at once, >= 1.
      limits: of each.

    Raises:
      ValueError: `num_workers` below 1.
      WorkError: raised by `function`, or workers cannot be started.
    """
    if num_workers < 1:
        raise ValueError(f"num_workers is {num_workers}, but must be >= 1.")
    pool = _Pool(function, jobs, num_workers, limits)
    try:
        yield from pool.results()
    finally:
        pool.end()


# What workers call.

_parent: int | None = None
_patience = PATIENCE_SECONDS


def alive() -> None:
    """A sign of life: the alarm of this worker starts anew. To be called from workers only.

    A worker whose parent was killed ends here: it would otherwise go on beside the next run.
    """
    if os.getppid() != _parent:
        os._exit(1)
    signal.setitimer(signal.ITIMER_REAL, _patience)


@contextlib.contextmanager
def unhurried() -> Iterator[None]:
    """Inside, nothing counts as a hang: for writing, where a slow disk sets the pace."""
    if _parent is None:  # not a worker
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    yield
    alive()


class _Worker:
    """A process, and the index of the job that it is at."""

    def __init__(self, function: Callable[..., Any], limits: Limits):
        context = multiprocessing.get_context("spawn")  # JAX's threads do not survive a fork
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, function, limits), daemon=True)
        self.process.start()
        theirs.close()  # theirs alone now, so its end is seen here
        self.job: int | None = None
        self.ready, self.jobs_left = False, _JOBS_PER_WORKER

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def exit_code(self) -> int:
        """Of a process that has closed its pipe."""
        self.process.join(5.0)
        if self.process.exitcode is None:
            self.end()
        return self.process.exitcode or 0


class _Pool:
    """Workers, the jobs they have, and results that wait for their turn."""

    def __init__(self, function: Any, jobs: Iterable[tuple], num_workers: int, limits: Limits):
        self._function, self._num_workers, self._limits = function, num_workers, limits
        self._new = enumerate(jobs)
        self._again: deque[int] = deque()
        self._jobs: dict[int, tuple] = {}  # begun, not yet done
        self._done: dict[int, Any] = {}
        self._next = 0  # whose turn it is
        self._workers: list[_Worker] = []
        self._failed_starts, self._second_chance = 0, set()

    def results(self) -> Iterator[tuple[int, Any]]:
        while self._hand_out():
            busy: dict[Any, _Worker] = {
                worker.pipe: worker for worker in self._workers if worker.job is not None
            }
            for pipe in connection.wait(list(busy)):
                self._hear(busy[pipe])
            while self._next in self._done:
                yield self._next, self._done.pop(self._next)
                self._next += 1

    def end(self) -> None:
        for worker in self._workers:
            worker.end()

    def _hand_out(self) -> bool:
        """A job to every idle worker; whether any is at work then."""
        while len(self._jobs) - len(self._again) < self._num_workers:
            index = self._take()
            if index is None:
                break
            worker = next((w for w in self._workers if w.job is None), None)
            if worker is None:
                worker = _Worker(self._function, self._limits)
                self._workers.append(worker)
            worker.job = index
            try:
                worker.pipe.send(self._jobs[index])
            except OSError:  # it died before
                self._bury(worker, begun=False)
        return bool(self._jobs)

    def _take(self) -> int | None:
        """The next job, unless too many results wait for one."""
        if self._again:
            return self._again.popleft()
        if len(self._done) + len(self._jobs) >= 4 * self._num_workers:
            return None
        index, job = next(self._new, (None, ()))
        if index is not None:
            self._jobs[index] = job
        return index

    def _hear(self, worker: _Worker) -> None:
        try:
            kind, content = worker.pipe.recv()
        except (EOFError, OSError):
            self._bury(worker)
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

    def _bury(self, worker: _Worker, *, begun: bool = True) -> None:
        """A worker died: its job ends, or begins anew if it was not to blame."""
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
                    "memory if it is short, and run again to go on."
                )
            self._again.append(index)
        elif not begun:
            self._again.append(index)
        elif -code in _SENT_BY_OTHERS and index not in self._second_chance:
            self._second_chance.add(index)
            self._again.append(index)
        else:
            self._finish(index, Failure(_cause(code, self._limits)))

    def _finish(self, index: int, result: Any) -> None:
        del self._jobs[index]
        self._second_chance.discard(index)
        self._done[index] = result


def _serve(pipe: Any, function: Callable[..., Any], limits: Limits) -> None:
    """The life of a worker: until its parent closes the pipe, or is no more."""
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent tells workers when to stop
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, inside the decoder too
    os.nice(1)


def _run(function: Callable[..., Any], job: tuple, limits: Limits) -> tuple[str, Any]:
    alive()
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
    """In words, what a process that ended with `code` died of."""
    if -code == signal.SIGALRM:
        return f"decoding hangs: nothing came for {limits.patience_seconds:g} s"
    if -code == signal.SIGKILL:
        return "decoding was killed, by the system for want of memory or by a person"
    names = {-s.value: s.name for s in signal.Signals}
    return f"decoding crashes the decoder ({names.get(code, f'exit status {code}')})"
