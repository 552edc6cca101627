# SPDX-License-Identifier: Apache-2.0
"""Guided sampling on every device and on one; exit 1 unless they agree. Run by `test_sample`."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mmdisco_jax.guidance.joint import Plan, PlannedJoint, residual
from mmdisco_jax.samplers.ddim import DDIM
from mmdisco_jax.samplers.ddpm import DDPM
from mmdisco_jax.samplers.grids import timesteps
from mmdisco_jax.samplers.noise import initial, keyed, sample_keys
from mmdisco_jax.samplers.sample import sample
from tests.support.gaussian_worlds import SCHEDULES, SHAPES, network


def _log_ratio(x, t, cond):
    del cond
    return jnp.tanh(x["audio"].sum((1, 2)) * x["video"].sum((1, 2, 3, 4))) * (1 + t / 1000)


def _run(keys):
    scales = {"audio": 1.0, "video": 2.0}
    guided = PlannedJoint(network(), residual(_log_ratio, SCHEDULES), scales, Plan(every=2))
    steppers, grid = {"audio": DDIM(), "video": DDPM()}, timesteps(SCHEDULES["audio"], 6, "leading")
    return sample(guided, initial(keys, SHAPES), steppers, SCHEDULES, grid, keyed(keys))


def main() -> int:
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    keys = sample_keys(0, jnp.arange(2 * jax.device_count()))
    run = jax.jit(_run)
    one, many = run(keys), jax.jit(_run, out_shardings=sharding)(jax.device_put(keys, sharding))
    worst = max(float(np.abs(np.asarray(one[m]) - np.asarray(many[m])).max()) for m in SHAPES)
    spread = all(len(many[m].sharding.device_set) == jax.device_count() for m in SHAPES)
    print(f"{jax.device_count()} devices, largest difference {worst:.2e}, spread {spread}")
    return int(not (worst < 5e-6 and spread))


if __name__ == "__main__":
    sys.exit(main())
