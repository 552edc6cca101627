# SPDX-License-Identifier: Apache-2.0
"""Golden kind "ddpm_scheduler": abar, timesteps, an ancestral step and a step back."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from mmdisco_jax.process import SCHEDULES
from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.samplers.ddpm import DDPM
from mmdisco_jax.samplers.levels import Levels, levels
from mmdisco_jax.samplers.sampler import renoise, step_tables
from tests.golden.checker import FORWARD, Golden, GoldenError, Pair

# What the project's DDPM is; a file with other options asks for something it does not have.
_FIXED = {
    "clip_sample": False,
    "thresholding": False,
    "timestep_spacing": "leading",
    "variance_type": "fixed_small",
    "prediction_type": "epsilon",
}


def schedule_of(config: Mapping) -> Schedule:
    """The schedule of an official (diffusers) scheduler config, as `meta` holds it."""
    other = {k: config[k] for k, v in _FIXED.items() if config.get(k, v) != v}
    if other:
        raise GoldenError(f"scheduler options this project does not have: {other}")
    return SCHEDULES.get(config["beta_schedule"])(
        config["num_train_timesteps"], config["beta_start"], config["beta_end"]
    )


def path_of(config: Mapping, num_steps: int) -> tuple[DDPM, Levels]:
    """The stepper and its noise levels."""
    stepper = DDPM(stride=config["num_train_timesteps"] // num_steps)
    path = levels(schedule_of(config), num_steps, "leading", config["steps_offset"])
    return stepper, path


def check(golden: Golden) -> dict[str, Pair]:
    """`stepN` and `rev_stepN` belong to the N-th timestep and both start from x."""
    x, e, z = (jnp.asarray(golden[name]) for name in ("x", "e", "z"))
    pairs = {}
    for name in golden.unread:
        config_name, num_steps, what = name.split("/")
        config = golden.require("configs")[config_name]
        schedule = schedule_of(config)
        stepper, path = path_of(config, int(num_steps))
        want = golden[name]
        if what == "timesteps":
            pairs[name] = Pair(path.times, want, 0.0)
        elif what == "alphas_cumprod":
            pairs[name] = Pair(schedule.abar, want, FORWARD)
        else:
            index = int(what.removeprefix("rev_").removeprefix("step"))
            tables = step_tables(stepper, schedule, path, num_substeps=2)
            row = {column: jnp.asarray(values, x.dtype)[index] for column, values in tables.items()}
            back = what.startswith("rev_")
            got = renoise(x, row, z) if back else stepper.step(x, e, row, None, z)[0]
            pairs[name] = Pair(np.asarray(got), want, FORWARD)
    return pairs
