# SPDX-License-Identifier: Apache-2.0
"""DPM-Solver with steps of the size that its own error estimate allows (2206.00927, appendix C).

Each step is taken by two orders that share their model calls; their difference is the error. It is
no fixed grid, so it is no stepper: the loop is a `lax.while_loop`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmdisco_jax.process.predictions import per_sample
from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.samplers import exponential
from mmdisco_jax.samplers.api import check_clip, check_quantile
from mmdisco_jax.types import AV, Array, Cond, DenoiseFn

_POSITIONS = {2: (0.5,), 3: (1 / 3, 2 / 3)}


class AdaptiveReport(NamedTuple):
    """num_evaluations int32 [b]: model calls that a sample took part in; finished bool [b]."""

    num_evaluations: Array
    finished: Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adaptive:
    """DPM-Solver-12 and -23 (and their data-prediction forms) for pairs of any modalities.

    Attributes:
      prediction, variant, clip, quantile: as in `DPMSolver`.
      order: of the higher method, 2 or 3; also the model calls per step.
      h_init: first step, in log(alpha / sigma).
      atol, rtol: a step is accepted if the root mean square over a sample's elements of (difference
        of the orders) / max(atol, rtol max(|x|, |x before|)) is at most 1 in every modality.
      theta: safety factor of the next step's size.
      t_err: stop this near to level 0, in units of T.
      per: "sample" gives each sample its own step sizes, so that it does not depend on its batch.
        "batch" is the official rule: the largest error of the batch decides for all.
      max_evaluations: stop there, finished or not; see the report.
      model_time: "truncated" or "continuous", as in `solver_grid`.

    The official solver estimates errors of noise prediction with a wrong first-order audio step;
    this one does not (see `DPMSolver`).
    """

    prediction: str = "x0"
    order: int = 2
    variant: str = "dpm_solver"
    clip: float | None = None
    quantile: float | None = None
    h_init: float = 0.05
    atol: float = 0.0078
    rtol: float = 0.05
    theta: float = 0.9
    t_err: float = 1e-5
    per: str = "sample"
    max_evaluations: int = 1000
    model_time: str = "truncated"

    def __post_init__(self):
        for name, known in (
            ("prediction", exponential.PREDICTIONS),
            ("variant", exponential.VARIANTS),
            ("order", (2, 3)),
            ("per", ("sample", "batch")),
            ("model_time", ("truncated", "continuous")),
        ):
            if getattr(self, name) not in known:
                choices = ", ".join(map(str, known))
                value = getattr(self, name)
                raise ValueError(f"the adaptive {name} is {value!r}: choose one of {choices}.")
        for name in ("h_init", "atol", "rtol", "theta", "t_err", "max_evaluations"):
            if not getattr(self, name) > 0:
                raise ValueError(f"the adaptive {name} must be positive, is {getattr(self, name)}.")
        check_clip(self.clip)
        check_quantile(self.quantile, self.clip)


class _State(NamedTuple):
    x: AV
    x_before: AV  # the lower order's result of the last accepted step
    level: Array
    h: Array
    num_evaluations: Array


def sample_adaptive(
    denoise: DenoiseFn,
    x_T: AV,
    schedules: Mapping[str, Schedule],
    solver: Adaptive,
    *,
    cond: Cond = None,
) -> tuple[AV, AdaptiveReport]:
    """Integrates from level T - 1 to level 0 of the schedules; one compiled loop.

    Args:
      denoise: (x, t, cond) -> eps. Samples are at levels of their own: t [b] differs.
      x_T: noise {modality: [b ...]}.
      schedules: of each modality, equally long; step sizes are those of the first name's.

    Returns:
      (samples, report). Samples of which `finished` is False stopped at `max_evaluations`, or met
      a value that is not finite: raise atol and rtol, or look at the model.
    """
    lead, first = schedules[min(x_T)], next(iter(x_T.values()))
    batch, dtype = first.shape[0], first.dtype
    goal = lead.log_snr(jnp.zeros((), dtype))
    near = solver.t_err * lead.num_timesteps

    def active(state: _State) -> Array:
        busy = (state.level > near) & jnp.isfinite(state.h)
        return busy & (state.num_evaluations + solver.order <= solver.max_evaluations)

    def step(state: _State) -> _State:
        going = active(state)
        here = lead.log_snr(state.level)
        # Who has arrived steps back and forgets it: a step of size 0 has no finite weights.
        h = jnp.where(going, state.h, -solver.h_init)
        at = [lead.level(here + r * h) for r in (0.0, *_POSITIONS[solver.order], 1.0)]
        at[0] = state.level  # exactly
        low, high = _two_orders(denoise, state.x, schedules, solver, at, cond)
        error = _error(low, high, state.x_before, solver)
        if solver.per == "batch":
            error = jnp.where(going, error, 0.0).max() + jnp.zeros_like(error)
        accepted = going & (error <= 1)
        level = jnp.where(accepted, at[-1], state.level)
        wished = solver.theta * state.h * error ** (-1 / solver.order)
        h = jnp.minimum(wished, goal - lead.log_snr(level))
        return _State(
            x=_choose(accepted, high, state.x),
            x_before=_choose(accepted, low, state.x_before),
            level=level,
            h=jnp.where(going, h, state.h),
            num_evaluations=state.num_evaluations + solver.order * going,
        )

    start = _State(
        x=x_T,
        x_before=x_T,
        level=jnp.full((batch,), lead.num_timesteps - 1, dtype),
        h=jnp.full((batch,), solver.h_init, dtype),
        num_evaluations=jnp.zeros((batch,), jnp.int32),
    )
    end = jax.lax.while_loop(lambda state: active(state).any(), step, start)
    return end.x, AdaptiveReport(end.num_evaluations, end.level <= near)


def _choose(accepted: Array, new: AV, old: AV) -> AV:
    """[b ...]: the new values of the samples whose step is accepted."""
    return {m: jnp.where(per_sample(accepted, v), v, old[m]) for m, v in new.items()}


def _two_orders(
    denoise: DenoiseFn,
    x: AV,
    schedules: Mapping[str, Schedule],
    solver: Adaptive,
    levels: list[Array],
    cond: Cond,
) -> tuple[AV, AV]:
    """Results of orders p - 1 and p of a step through `levels` [b]: its start, stages and end."""
    log_snr = {m: [schedules[m].log_snr(u) for u in levels] for m in x}
    predictions: dict[str, list[Array]] = {m: [] for m in x}

    def onward(m: str, stop: int, used: int, variant: str) -> Array:
        """x at levels[stop] by the first `used` predictions."""
        s = log_snr[m]
        ratio, scale, z = exponential.ends(s[0], s[stop], solver.prediction, jnp)
        nodes = tuple((s[k] - s[0]) / (s[stop] - s[0]) for k in range(1, used))
        weights = exponential.weights(scale, z, nodes, variant, jnp)
        out = per_sample(ratio, x[m]) * x[m]
        for weight, prediction in zip(weights, predictions[m], strict=False):
            out = out + per_sample(weight, x[m]) * prediction
        return out

    for stage in range(solver.order):
        here = {m: onward(m, stage, stage, "taylor") if stage else x[m] for m in x}
        t = levels[stage]
        told = jnp.floor(t + 1e-3).astype(jnp.int32) if solver.model_time == "truncated" else t
        eps = denoise(here, told, cond)
        for m in x:
            noise = (
                part(log_snr[m][stage], jnp) for part in (exponential.alpha, exponential.sigma)
            )
            alpha, sigma = (per_sample(v, x[m]) for v in noise)
            predictions[m].append(exponential.predicted(here[m], eps[m], alpha, sigma, solver))
    last, order = len(levels) - 1, solver.order
    low, high = ({m: onward(m, last, k, solver.variant) for m in x} for k in (order - 1, order))
    return low, high


def _error(low: AV, high: AV, before: AV, solver: Adaptive) -> Array:
    """[b]: the largest of the modalities' root mean square errors, in units of the tolerance."""
    errors: list[Any] = []
    for m in low:
        size = jnp.maximum(jnp.abs(low[m]), jnp.abs(before[m]))
        scaled = (high[m] - low[m]) / jnp.maximum(solver.atol, solver.rtol * size)
        errors.append(jnp.sqrt(jnp.square(scaled).mean(axis=range(1, scaled.ndim))))
    return jnp.stack(errors).max(axis=0)
