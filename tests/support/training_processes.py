# SPDX-License-Identifier: Apache-2.0
"""Fresh processes, for tests that die or need other devices, that do not import JAX each time."""

import contextlib
import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache as cache

ROOT = Path(__file__).resolve().parents[2]
_CONTEXT = multiprocessing.get_context("forkserver")
_MODES = [f"mmdisco_jax.{name}" for name in ("cli", "tasks.sample", "tasks.train")]
_CONTEXT.set_forkserver_preload(["tests.support.toy_training", *_MODES])
_COMPILER = ("jax_compilation_cache_dir", "jax_disable_most_optimizations")


@contextlib.contextmanager
def compilation_cache(directory: Path | str | None) -> Iterator[None]:
    """Keeps compiled programs in a folder, also for processes started meanwhile."""
    settings = {
        "jax_compilation_cache_dir": directory and str(directory),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: jax.config.values[name] for name in settings}
    try:
        _configure(settings)
        yield
    finally:
        _configure(before)


def _configure(settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    cache.reset_cache()  # JAX looks at the settings only once


def start(
    function: Callable[..., None], *args: Any, devices: int = 1, **kwargs: Any
) -> BaseProcess:
    """Calls the function in a new process with so many CPU devices, and this one's compiler."""
    compiler = {name: jax.config.values[name] for name in _COMPILER}
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)  # the fork server's own, to preload from
    try:
        process = _CONTEXT.Process(target=_call, args=(devices, compiler, function, args, kwargs))
        process.start()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return process


def free_address() -> str:
    """For a coordinator of several processes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


def finish(process: BaseProcess, timeout: float = 120) -> int:
    """The exit code; negative for a signal. A process that hangs is killed and fails the test."""
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"still running after {timeout} seconds")
    return process.exitcode


def call(function: Callable[..., None], *args: Any, **kwargs: Any) -> int:
    return finish(start(function, *args, **kwargs))


def _call(
    devices: int, compiler: dict[str, Any], function: Callable[..., None], args: Any, kwargs: Any
) -> None:
    _configure(compiler)
    directory = compiler["jax_compilation_cache_dir"]
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)
    with compilation_cache(directory):
        function(*args, **kwargs)
