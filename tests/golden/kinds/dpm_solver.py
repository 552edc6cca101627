# SPDX-License-Identifier: Apache-2.0
"""Golden kind "dpm_solver++": single-step and multistep solvers on the analytic model."""

import re

import jax

from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.samplers.dpm_solver import DPMSolver
from mmdisco_jax.samplers.levels import solver_levels
from mmdisco_jax.samplers.sampler import Sampler
from mmdisco_jax.types import AV, DenoiseFn
from tests.golden.checker import Golden, GoldenError, Pair
from tests.golden.kinds.mm_diffusion import TO_OURS, model, official, start
from tests.support.gaussian_worlds import no_noise

BOUND = 3e-5  # 20 evaluations in float32; found: 1e-5
SPACINGS = {"logSNR": "logsnr", "time_uniform": "uniform", "time_quadratic": "quadratic"}
_CASE = re.compile(r"(singlestep|multistep)_o([123])_n(\d+)_(\w+?)_thr([01])")


def solve(
    denoise: DenoiseFn, x_T: AV, schedule: Schedule, solver: DPMSolver, n: int, spacing: str
) -> AV:
    """Samples of the deterministic solver."""
    path = solver_levels(schedule, n, spacing)
    sampler = Sampler({m: solver for m in x_T}, {m: schedule for m in x_T}, path)
    return jax.jit(lambda x_T: sampler.run(denoise, x_T=x_T, noise=no_noise()))(x_T)


def check(golden: Golden) -> dict[str, Pair]:
    """Cases are `<method>_o<order>_n<calls>_<spacing>_thr<0 or 1>`, all of data prediction."""
    schedule, x_T = Schedule(golden["alphas_cumprod"]), start(golden)
    denoise, pairs = model(golden, schedule), {}
    for name in golden.require("cases"):
        found = _CASE.fullmatch(name)
        if not found:
            raise GoldenError(f"{golden.path}: case {name!r} is not one of {_CASE.pattern}")
        method, order, n, spacing, limited = found.groups()
        clip, quantile = (1.0, 0.995) if limited == "1" else (None, None)
        solver = DPMSolver(order=int(order), method=method, clip=clip, quantile=quantile)
        out = solve(denoise, x_T, schedule, solver, int(n), SPACINGS[spacing])
        for m in TO_OURS:
            pairs[f"{name}/{m}"] = Pair(official(out[m], m), golden[f"{name}/{m}"], BOUND)
    return pairs
