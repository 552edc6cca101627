# SPDX-License-Identifier: Apache-2.0
"""Run by `test_place`: weights over all devices, each with its own part and the same values."""

import jax
import numpy as np
from flax import nnx

from mmdisco_jax import parallel
from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.porting.place import place
from tests.support.porting import unplace


def main() -> None:
    params = nnx.split(nnx.eval_shape(lambda: nnx.Linear(256, 128, rngs=param_keys(0))))[1]
    mesh = parallel.make_mesh({"data": 2, "fsdp": 4})
    kernel = np.arange(256 * 128, dtype=np.float32).reshape(128, 256)
    tensors = {"weight": kernel, "bias": np.arange(128, dtype=np.float32)}
    placed = place(params, tensors, shardings=parallel.tree_shardings(params, mesh))
    leaf = placed["kernel"][...]
    assert {shard.data.shape for shard in leaf.addressable_shards} == {(64, 128)}
    assert len(leaf.sharding.device_set) == 8
    assert {shard.data.shape for shard in placed["bias"][...].addressable_shards} == {(128,)}
    for shard in leaf.addressable_shards:
        np.testing.assert_array_equal(shard.data, kernel.T[shard.index])
    back = unplace(placed)
    assert all(np.array_equal(back[name], tensors[name]) for name in tensors)
    print(f"{jax.device_count()} devices")


if __name__ == "__main__":
    main()
