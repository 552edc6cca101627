# SPDX-License-Identifier: Apache-2.0
"""Guided sampling on every device and on one; exit 1 unless they agree. Run by `test_sample`."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mmdisco_jax.guidance.joint import Plan, joint
from mmdisco_jax.samplers.ddim import DDIM
from mmdisco_jax.samplers.ddpm import DDPM
from mmdisco_jax.samplers.levels import levels
from mmdisco_jax.samplers.sampler import Sampler
from tests.support.gaussian_worlds import SCHEDULES, SHAPES, network


def _log_ratio(x, t, cond):
    del cond
    return jnp.tanh(x["audio"].sum((1, 2)) * x["video"].sum((1, 2, 3, 4))) * (1 + t / 1000)


def main() -> int:
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    scales = {"audio": 1.0, "video": 2.0}
    guided = joint(network(), _log_ratio, SCHEDULES, scales, plan=Plan(every=2))
    path = levels(SCHEDULES, 6, "leading")
    sampler = Sampler({"audio": DDIM(), "video": DDPM()}, SCHEDULES, path)
    indices = np.arange(2 * jax.device_count(), dtype=np.int32)
    cut = jax.device_put(indices, sharding)
    one = sampler.run(guided, SHAPES, indices=indices)
    many = sampler.run(guided, SHAPES, indices=cut)
    ahead = sampler.compile(guided, SHAPES, indices=cut)(guided, cut)
    same = all(np.array_equal(many[m], ahead[m]) for m in SHAPES)
    worst = max(float(np.abs(np.asarray(one[m]) - np.asarray(many[m])).max()) for m in SHAPES)
    spread = all(len(many[m].sharding.device_set) == jax.device_count() for m in SHAPES)
    print(
        f"{jax.device_count()} devices, largest difference {worst:.2e}, spread {spread}"
        f", as compiled ahead {same}"
    )
    return int(not (worst < 5e-6 and spread and same))


if __name__ == "__main__":
    sys.exit(main())
