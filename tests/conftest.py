# SPDX-License-Identifier: Apache-2.0
"""Fixtures of all tests: programs are compiled once a session."""

import gc
import os
from pathlib import Path

import jax
import pytest

# XLA's new code generator for CPUs takes half as long again as the old one, which JAX 0.11 lacks.
if jax.__version_info__ < (0, 11):
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_use_fusion_emitters=false".strip()

# Two processes that compile a function of Numba for the first time at once can leave a cache that
# ends every later process by a segmentation fault: each worker has a cache of its own.
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
os.environ["NUMBA_CACHE_DIR"] = str(Path(__file__).parents[1] / ".cache" / "numba" / _WORKER)

# Tracing makes many objects and little garbage.
gc.set_threshold(50_000, 50, 100)


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """Many tests build the same small programs, and on a CPU compiling is most of their time.

    The workers of a session share one folder, and so do the processes that tests start.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("jax_compilation_cache_dir", str(folder / "xla")),
            ("jax_persistent_cache_min_compile_time_secs", 0.2),
        ):
            jax.config.update(name, value)
            patch.setenv(name.upper(), str(value))
        yield
    jax.config.update("jax_compilation_cache_dir", None)


# Many small programs, each run once or twice: compiling them well costs more than it saves.
_COMPILED_FAST = (
    *("base_models", "codecs", "contracts", "discriminator", "e2e", "guidance", "nn"),
    *("process", "samplers", "tasks", "tests", "text", "training", "worlds"),
)


@pytest.fixture(scope="module", autouse=True)
def compiled_fast(request):
    """Tests of networks, apart from the golden ones, compile without most optimisations."""
    fast = request.path.parent.name in _COMPILED_FAST
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", fast)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
