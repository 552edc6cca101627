# SPDX-License-Identifier: Apache-2.0
"""Golden kind "mmdisco_mm_diffusion_sample": DPM-Solver++ with and without a discriminator."""

import numpy as np

from mmdisco_jax.discriminator.log_ratio import log_ratio
from mmdisco_jax.discriminator.official import OfficialDiscriminator
from mmdisco_jax.guidance.joint import joint
from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.porting.load import load_module
from mmdisco_jax.process.schedules import linear
from mmdisco_jax.samplers.dpm_solver import DPMSolver
from mmdisco_jax.types import AV, Array, LogRatioFn
from tests.golden.checker import Golden, Pair
from tests.golden.kinds.discriminator import spec_of
from tests.golden.kinds.dpm_solver import BOUND, solve
from tests.golden.kinds.mm_diffusion import TO_OURS, model, official, start

_SOLVER = DPMSolver(order=3, method="singlestep", clip=1.0, quantile=0.995)
_PIXELS = 2e-3  # a rounding difference of one level in a few pixels of 255


def _log_ratio(golden: Golden) -> LogRatioFn:
    weights = golden.weights()
    weights["last_linear.weight"] *= golden.require("last_linear_weight_scale")
    spec = spec_of(golden.require("config"))
    network = load_module(lambda: OfficialDiscriminator(spec, rngs=param_keys(0)), weights)

    def h(x: AV, t: Array, cond: None) -> Array:
        del cond
        return log_ratio(network(x["video"], x["audio"], t), "official")

    return h


def check(golden: Golden) -> dict[str, Pair]:
    """`plain` and `joint` samples, and their frames as the official code makes pixels of them."""
    schedule, x_T = linear(), start(golden)
    base = model(golden, schedule)
    scales = {m: golden.require(f"joint_scale_{m}") for m in TO_OURS}
    guided = joint(base, _log_ratio(golden), {m: schedule for m in TO_OURS}, scales)
    pairs = {}
    for name, denoise in (("plain", base), ("joint", guided)):
        out = solve(denoise, x_T, schedule, _SOLVER, 20, "logsnr")
        for m in TO_OURS:
            pairs[f"{name}/{m}"] = Pair(official(out[m], m), golden[f"{name}/{m}"], BOUND)
        # The official code cuts the fraction off; our codec rounds.
        pixels = np.clip((np.asarray(out["video"]) + 1) * 127.5, 0, 255).astype(np.uint8)
        pairs[f"{name}/video_uint8"] = Pair(pixels, golden[f"{name}/video_uint8"], _PIXELS)
    return pairs
