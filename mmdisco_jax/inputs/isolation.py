# SPDX-License-Identifier: Apache-2.0
"""Work on files that nobody vouches for, in processes that may die without harm.

A damaged file can make a decoder crash, hang or ask for all memory. Each worker process has a
limit on its memory and an alarm clock that ends it when it has shown no sign of life for a while;
whatever ends a worker ends the file it was at, with a reason, and another worker takes its place.
"""

import dataclasses
import multiprocessing
import os
import resource
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pebble import ProcessExpired, ProcessPool

# Without a frame or a packet for so long, a file hangs.
PATIENCE_SECONDS = 20.0
# Of address space, a few times what is ever resident: libraries and thread stacks count as well.
ADDRESS_SPACE_BYTES = 6 << 30


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why there is no result: the worker raised, or died."""

    reason: str


def alive() -> None:
    """A sign of life: the alarm of this worker starts anew. To be called from workers only."""
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_SECONDS)


def isolated_map(
    function: Callable[..., Any], jobs: Iterable[tuple], *, num_workers: int
) -> Iterator[tuple[int, Any]]:
    """(index of the job, function(*job) or a Failure), in the order of the jobs.

    Args:
      function: importable by name, as its results must be picklable. It calls `alive` at least
        every few seconds; its own exceptions become Failures too.
      jobs: arguments; read a few ahead of what is done.
      num_workers: processes at once, >= 1.

    Raises:
      ValueError: `num_workers` below 1.
    """
    if num_workers < 1:
        raise ValueError(f"num_workers is {num_workers}, but must be >= 1.")
    context = multiprocessing.get_context("spawn")  # JAX's threads do not survive a fork
    waiting: deque = deque()
    with ProcessPool(max_workers=num_workers, context=context, initializer=_limit) as pool:
        try:
            for index, job in enumerate(jobs):
                waiting.append((index, pool.schedule(_run, args=[function, job])))
                if len(waiting) >= 4 * num_workers:
                    yield _result(*waiting.popleft())
            while waiting:
                yield _result(*waiting.popleft())
        except BaseException:
            pool.stop()
            raise


def _limit() -> None:
    """What every worker begins with."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent tells workers when to stop
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, inside the decoder too
    os.nice(1)


def _run(function: Callable[..., Any], job: tuple) -> Any:
    alive()
    try:
        return function(*job)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)


def _result(index: int, future: Any) -> tuple[int, Any]:
    try:
        return index, future.result()
    except ProcessExpired as death:
        return index, Failure(_cause(abs(death.exitcode or 0)))
    except Exception as error:
        return index, Failure(str(error) or type(error).__name__)


def _cause(number: int) -> str:
    if number == signal.SIGALRM:
        return f"decoding hangs: nothing came for {PATIENCE_SECONDS:.0f} s"
    if number == signal.SIGKILL:
        return "decoding was killed, by the system for want of memory or by a person"
    names = {s.value: s.name for s in signal.Signals}
    return f"decoding crashes the decoder ({names.get(number, f'exit status {number}')})"
