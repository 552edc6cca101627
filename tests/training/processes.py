# SPDX-License-Identifier: Apache-2.0
"""Fresh processes, for tests that die or need other devices, that do not import JAX each time."""

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

ROOT = Path(__file__).resolve().parents[2]
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.training.toy"])


def start(
    function: Callable[..., None], *args: Any, devices: int = 1, **kwargs: Any
) -> multiprocessing.process.BaseProcess:
    """Calls the function in a new process with so many CPU devices."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)  # the fork server's own, to preload from
    try:
        process = _CONTEXT.Process(target=_call, args=(devices, function, args, kwargs))
        process.start()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return process


def finish(process: multiprocessing.process.BaseProcess, timeout: float = 120) -> int:
    """The exit code; negative for a signal. A process that hangs is killed and fails the test."""
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"still running after {timeout} seconds")
    return process.exitcode


def call(function: Callable[..., None], *args: Any, **kwargs: Any) -> int:
    return finish(start(function, *args, **kwargs))


def _call(devices: int, function: Callable[..., None], args: Any, kwargs: Any) -> None:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)
    function(*args, **kwargs)
