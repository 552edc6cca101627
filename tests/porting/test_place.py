# SPDX-License-Identifier: Apache-2.0
"""Weights put straight where they belong: strict, cast, sharded, never held twice."""

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from mmdisco_jax import parallel
from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.porting.lazy import LazyTensor, LazyTensors, open_files
from mmdisco_jax.porting.load import from_torch, to_torch
from mmdisco_jax.porting.names import TorchTensor
from mmdisco_jax.porting.place import place
from tests.support.porting import unplace


class Net(nnx.Module):
    """A little of everything: lists, a convolution, a table of integers."""

    def __init__(self, rngs: nnx.Rngs):
        self.layers = nnx.List([nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 4, rngs=rngs)])
        self.conv = nnx.Conv(2, 5, (3, 3), rngs=rngs)
        self.steps = nnx.Param(jnp.arange(3))


def abstract() -> nnx.State:
    return nnx.split(nnx.eval_shape(lambda: Net(param_keys(0))))[1]


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    entries = unplace(abstract()).entries.items()
    drawn = {name: rng.standard_normal(entry.shape).astype(np.float32) for name, entry in entries}
    return drawn | {"steps": np.array([5, 6, 7], np.int32)}


def test_as_the_eager_way(tensors):
    placed = place(abstract(), tensors)
    want = from_torch(abstract(), tensors)
    assert jax.tree.structure(placed) == jax.tree.structure(want)
    assert jax.tree.all(jax.tree.map(np.array_equal, placed, want))
    assert placed["conv"]["kernel"].shape == (3, 3, 2, 5)
    back = unplace(placed)
    assert back.keys() == to_torch(placed).keys() == tensors.keys()
    assert all(np.array_equal(back[name], tensors[name]) for name in tensors)


def test_dtype_is_of_floating_parameters(tensors):
    placed = place(abstract(), tensors, dtype=jnp.bfloat16)
    dtypes = {name: leaf.dtype for name, leaf in parallel.named_leaves(placed).items()}
    assert dtypes.pop("steps") == jnp.int32
    assert set(dtypes.values()) == {jnp.dtype(jnp.bfloat16)}
    halves = {name: x.astype(np.float16) for name, x in tensors.items() if name != "steps"}
    placed = place(abstract(), halves | {"steps": tensors["steps"]})
    assert placed["conv"]["bias"].dtype == jnp.float32  # the module's, unless another is asked for


def test_overrides(tensors):
    table = {"layers.0.kernel": TorchTensor("first", (0, 1))}
    renamed = {("first" if n == "layers.0.weight" else n): x for n, x in tensors.items()}
    renamed["first"] = renamed["first"].T
    placed: Any = place(abstract(), renamed, overrides=table)
    assert np.array_equal(placed["layers"][0]["kernel"][...], renamed["first"])
    assert unplace(placed, overrides=table).keys() == renamed.keys()


def test_misfits_are_named_before_anything_is_read(tensors):
    def entry(array):
        return LazyTensor(array.shape, array.dtype, lambda: pytest.fail("a tensor was read"))

    bad = {name: entry(array) for name, array in tensors.items() if name != "conv.bias"}
    bad["stranger"] = bad["steps"]
    bad["layers.0.weight"] = entry(tensors["layers.0.weight"].T)
    with pytest.raises(ValueError) as caught:
        place(abstract(), LazyTensors(bad))
    for part in ("missing: conv.bias", "unexpected: stranger", "layers.0.weight is (3, 4)"):
        assert part in str(caught.value)


def test_never_held_twice(tmp_path: Path):
    """Reading 32 MiB in float32 for bfloat16: Python's memory holds one tensor at a time, and at
    most what the devices share with it."""
    names = [f"layers.{i}.weight" for i in range(32)]
    save_file({n: np.full((512, 512), 0.5, np.float32) for n in names}, tmp_path / "w.safetensors")

    def make() -> nnx.Module:
        layers = [nnx.Linear(512, 512, use_bias=False, rngs=param_keys(0)) for _ in names]
        return nnx.Dict(layers=nnx.List(layers))

    params = nnx.split(nnx.eval_shape(make))[1]
    lazy = open_files([tmp_path / "w.safetensors"])
    tracemalloc.start()
    try:
        placed = place(params, lazy, dtype=jnp.bfloat16)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert all(jax.tree.leaves(jax.tree.map(lambda x: bool((x == 0.5).all()), placed)))
    assert peak < 22 * 2**20  # 16 that a CPU device may share, and a few of 1


def test_eight_devices_hold_their_parts():
    """Eight forced host devices; its own process, for XLA's flags."""
    root = Path(__file__).parents[2]
    flags = "--xla_force_host_platform_device_count=8"
    env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "tests.support.sharded_placing"]
    done = subprocess.run(command, env=env, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("8 devices")
