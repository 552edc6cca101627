# SPDX-License-Identifier: Apache-2.0
"""Golden kind "mm_diffusion_sampling": ancestral, DDIM, and zero-shot conditional samples.

The official unconditional loops ignore the start that they are given and draw one from the global
generator, which the file does not hold: its x_T is that of the conditional cases. For the others
the start is found from the end; what is checked is that there is one and that it is normal. A wrong
step asks for another: taken for those of eta 0.4, samples of eta 0.5 miss by 0.29 in deciles.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmdisco_jax.process.schedules import linear
from mmdisco_jax.samplers.ddim import DDIM
from mmdisco_jax.samplers.ddpm import DDPM
from mmdisco_jax.samplers.levels import respaced_levels
from mmdisco_jax.samplers.noise import NoiseFn
from mmdisco_jax.samplers.sampler import Sampler
from mmdisco_jax.types import AV
from tests.golden.checker import Golden, GoldenError, Pair
from tests.golden.kinds.mm_diffusion import TO_OURS, model, official, ours, start
from tests.golden.kinds.mm_diffusion_starts import implied_start

_STEPPERS = {
    "ancestral": DDPM(variance="fixed_large", clip=1.0),
    "ddim_eta0": DDIM(clip=1.0),
    "ddim_eta05": DDIM(eta=0.5, clip=1.0),
}
# Deciles of 1,056 normal numbers are this near to exact ones. The ancestral samples have forgotten
# most of their start; 0.25 is enough where a wrong variance or no clipping asks for 2.8 and more.
_SPREAD = {"ancestral": 0.25, "ddim_eta0": 0.06, "ddim_eta05": 0.06}
BOUND = 1e-5  # of 20 steps with the same noise


def _recorded(golden: Golden, num_steps: int) -> NoiseFn:
    """The named noise: per step one draw for video, then one for audio."""
    tables = {}
    for m, first in (("video", 1), ("audio", 2)):
        shape = golden[f"x_{m}"].shape
        calls = range(first, 2 * num_steps + 1, 2)
        tables[m] = jnp.stack([ours(golden.input(f"noise{n}", shape), m) for n in calls])
    return lambda step, draw, modality, shape: tables[modality][step]


def _found_start(run: Callable[[AV], AV], golden: Golden, name: str) -> tuple[AV, Pair]:
    """The start that the case's samples imply, and its deciles beside those of normal noise."""
    with jax.enable_x64(True):
        end = {m: jnp.asarray(ours(golden[f"{name}/{m}"], m), jnp.float64) for m in TO_OURS}
        x_T = {m: np.asarray(v, np.float32) for m, v in implied_start(run, end).items()}
    values = np.concatenate([v.ravel() for v in x_T.values()])
    deciles = np.arange(0.1, 1.0, 0.1)
    normal = np.asarray(jax.scipy.stats.norm.ppf(deciles))
    pair = Pair(np.quantile(values, deciles), normal, _SPREAD[name])
    return {m: jnp.asarray(v) for m, v in x_T.items()}, pair


def check(golden: Golden) -> dict[str, Pair]:
    """Case names are a sampler's, or `<given>2<wanted>_<method>`."""
    if golden.require("variance") != "FIXED_LARGE" or not golden.require("clip_denoised"):
        raise GoldenError(f"{golden.path}: only FIXED_LARGE with clip_denoised is known")
    schedule, x_T = linear(), start(golden)
    clean = {m: ours(golden[f"cond_{m}"], m) for m in TO_OURS}
    denoise, schedules = model(golden, schedule), {m: schedule for m in TO_OURS}
    pairs = {}
    for name, case in golden.require("cases").items():
        path = respaced_levels(schedule.num_timesteps, case["respacing"])
        pairs[f"{name}/timesteps"] = Pair(path.times[::-1], np.asarray(case["timesteps"]), 0.0)
        stepper = _STEPPERS.get(name, _STEPPERS["ancestral"])
        sampler = Sampler({m: stepper for m in TO_OURS}, schedules, path)
        options: dict[str, Any] = {"noise": _recorded(golden, len(path))}
        if name not in _STEPPERS:
            given, method = name.split("2")[0], name.split("_")[1]
            # The official error is a mean over the batch: each sample's is a share of it.
            weight = golden.require("class_scale") / len(x_T[given]) if method == "gradient" else 0
            options |= {"given": {given: clean[given]}, "given_weight": weight}

        def run(x: AV, sampler=sampler, options=options) -> AV:
            return sampler.run(denoise, x_T=x, **options)

        x = x_T
        if name in _STEPPERS:
            x, pairs[f"{name}/start"] = _found_start(run, golden, name)
        out = jax.jit(run)(x)
        for m in TO_OURS:
            pairs[f"{name}/{m}"] = Pair(official(out[m], m), golden[f"{name}/{m}"], BOUND)
    return pairs
