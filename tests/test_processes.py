# SPDX-License-Identifier: Apache-2.0
"""Several processes of one run end together: late ones are waited for, and an error stops all."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest
from jax.experimental import multihost_utils

from mmdisco_jax.processes import together, wait
from tests.support import training_processes as processes


def _run(address: str, number: int, workdir: Path, body: Callable[[], None], **options: Any):
    """For one of two processes: the body, and what came of it in a file."""
    limits = {k: options.pop(k) for k in list(options) if k.endswith("_timeout_seconds")}
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, 2, number, **limits)
    start = time.monotonic()
    said = "ended"
    try:
        with together(**options):
            body()
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
    (workdir / f"{number}").write_text(f"{time.monotonic() - start:.0f}\n{said}")


def run_two(workdir: Path, body: Callable[[], None], **options: Any):
    """Exit status, seconds and last words of both processes."""
    address = processes.free_address()
    timeout = options.pop("timeout", 120)
    both = [processes.start(_run, address, i, workdir, body, **options) for i in range(2)]
    statuses = [processes.finish(process, timeout) for process in both]
    told = [(workdir / str(i)) for i in range(2)]
    words = [path.read_text().split("\n", 1) if path.exists() else ["0", ""] for path in told]
    return statuses, [int(seconds) for seconds, _ in words], [text for _, text in words]


def _measure_on_the_first(seconds: float) -> None:
    if not jax.process_index():
        time.sleep(seconds)


def _measure_6_seconds() -> None:
    _measure_on_the_first(6)


def _measure_6_minutes() -> None:
    _measure_on_the_first(360)


def test_one_is_waited_for_beyond_the_limit_of_the_barrier_at_the_exit(tmp_path):
    statuses, seconds, words = run_two(tmp_path, _measure_6_seconds, shutdown_timeout_seconds=2)
    assert statuses == [0, 0] and words == ["ended", "ended"]
    assert min(seconds) >= 6


@pytest.mark.slow
def test_one_is_waited_for_six_minutes(tmp_path):
    statuses, seconds, words = run_two(tmp_path, _measure_6_minutes, timeout=500)
    assert statuses == [0, 0] and words == ["ended", "ended"]
    assert min(seconds) >= 360


def _fail_in_the_second() -> None:
    wait("both are here")
    if jax.process_index():
        raise ValueError("no such clip")
    time.sleep(300)


def test_an_error_in_one_is_the_end_of_both_and_named(tmp_path):
    statuses, seconds, words = run_two(tmp_path, _fail_in_the_second)
    assert statuses == [0, 0] and max(seconds) < 15
    assert words[1] == "ValueError: no such clip"
    assert words[0] == ("OtherProcessError: process 1 of 2 stopped with ValueError: no such clip")


def _fail_before_a_collective() -> None:
    if not jax.process_index():
        raise OSError("disk full")
    multihost_utils.sync_global_devices("never")


def test_one_that_waits_in_a_collective_is_ended_too(tmp_path):
    statuses, seconds, words = run_two(
        tmp_path, _fail_before_a_collective, grace_seconds=3, shutdown_timeout_seconds=5
    )
    assert statuses[1] == 1 and words[1] == ""
    assert words[0] == "OSError: disk full" and seconds[0] < 20


def _fail_in_a_wait() -> None:
    if jax.process_index():
        raise ValueError("early")
    wait("never")


def test_a_wait_ends_with_the_other_and_counts_by_order(tmp_path):
    _, seconds, words = run_two(tmp_path, _fail_in_a_wait)
    assert words[0].startswith("OtherProcessError: process 1 of 2") and max(seconds) < 15


def _leave_early() -> None:
    for n in range(12):  # names of ten and more must not be taken for those of one
        wait(f"step {n}")
    if jax.process_index():
        sys.exit(3)
    time.sleep(3)


def test_one_that_exits_waits_for_the_other(tmp_path):
    statuses, seconds, words = run_two(tmp_path, _leave_early, shutdown_timeout_seconds=2)
    assert statuses == [0, 0] and words == ["ended", "SystemExit: 3"] and min(seconds) >= 3


def _interrupt_the_first() -> None:
    wait("both are here")
    if not jax.process_index():
        os.kill(os.getpid(), signal.SIGINT)
    time.sleep(300)


def test_ctrl_c_in_one_stops_both(tmp_path):
    _, seconds, words = run_two(tmp_path, _interrupt_the_first)
    assert words[0].startswith("KeyboardInterrupt") and max(seconds) < 15
    assert words[1] == "OtherProcessError: process 0 of 2 stopped with KeyboardInterrupt()"


def test_a_single_process_is_not_touched():
    with together():
        wait("nobody")
    with pytest.raises(ValueError, match="mine"), together():
        raise ValueError("mine")
