# SPDX-License-Identifier: Apache-2.0
"""Joint guidance: what the discriminator knows of the pair, added to models of one half each.

The optimal discriminator's logit is h = log q(a, v) - log p(a) p(v), so the joint score is the base
score plus the gradient of h (MMDisCo, Hayakawa et al. 2025, arXiv 2405.17842). In terms of noise,

    eps_joint_m = eps_m + s_m r_m,      r_m = -sigma_m(t) dh/dx_m.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmdisco_jax.process.predictions import per_sample
from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.types import AV, Array, Cond, DenoiseFn, LogRatioFn

ResidualFn = Callable[[AV, Array, Cond], AV]


def residual(log_ratio: LogRatioFn, schedules: Mapping[str, Schedule]) -> ResidualFn:
    """r_m = -sigma_m(t) dh/dx_m of every modality, by one gradient over the whole pair."""

    def fn(x: AV, t: Array, cond: Cond) -> AV:
        # The sum's gradient is each sample's own, because h does not mix samples.
        grads = jax.grad(lambda pair: log_ratio(pair, t, cond).sum())(x)
        return {m: -per_sample(schedules[m].sigma(t), g) * g for m, g in grads.items()}

    return fn


def add(eps: AV, r: AV, scales: Mapping[str, float]) -> AV:
    """eps_m + s_m r_m; a scale of 0 leaves eps_m as it is, bit for bit."""
    return {m: e + scales[m] * r[m] if scales[m] else e for m, e in eps.items()}


def joint(
    denoise: DenoiseFn,
    log_ratio: LogRatioFn,
    schedules: Mapping[str, Schedule],
    scales: Mapping[str, float],
) -> DenoiseFn:
    """Joint guidance of frozen models by a discriminator, with a scale per modality.

    The prediction becomes eps_m + s_m r_m with r_m = -sigma_m dh/dx_m: the noise estimate of the
    joint density, where `denoise` gives those of the models on their own (MMDisCo, ICLR 2025).

    Args:
      denoise: (x, t, cond) -> eps, for {modality: [b ...]}.
      log_ratio: (x, t, cond) -> h [b], the discriminator's log-ratio.
      schedules: the noise schedule of each modality.
      scales: s_m. 0 leaves that modality's eps as it is, bit for bit; 1 is the joint density.

    Returns:
      A DenoiseFn, to be given to a sampler or to be guided further.
    """
    return guided_by(denoise, residual(log_ratio, schedules), scales)


def guided_by(denoise: DenoiseFn, r: ResidualFn, scales: Mapping[str, float]) -> DenoiseFn:
    """`denoise` with the residual at every noise level; both may be under classifier-free guidance.

    Scales of 0 leave `denoise` as it is.
    """

    def guided(x: AV, t: Array, cond: Cond) -> AV:
        if not any(scales.values()):
            return denoise(x, t, cond)
        return add(denoise(x, t, cond), r(x, t, cond), scales)

    return guided


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """When the discriminator is evaluated.

    interval: noise levels [low, high] outside which samples are not guided (Kynkaanniemi et al.
      2024), or None for all.
    every: evaluate on each `every`-th guided step and reuse the residual between.
    """

    interval: tuple[int, int] | None = None
    every: int = 1

    def __post_init__(self):
        if self.every < 1:
            raise ValueError(f"`every` must be at least 1 guided step, got {self.every}.")
        if self.interval is not None and not self.interval[0] <= self.interval[1]:
            raise ValueError(f"a guidance interval is [low, high], got {tuple(self.interval)}.")


class PlanMemory(NamedTuple):
    """The last residual, and how many guided calls there have been (int32 [])."""

    residual: AV
    count: Array


@dataclasses.dataclass(frozen=True, eq=False)  # by identity: jit hashes what it is given
class PlannedJoint:
    """A guided denoiser that skips or reuses the discriminator by a plan.

    The sampler carries its memory. All samples of a call share the noise level, so what is
    skipped is not computed.
    """

    denoise: DenoiseFn
    residual: ResidualFn
    scales: Mapping[str, float]
    plan: Plan

    def init(self, x: AV) -> PlanMemory:
        return PlanMemory(jax.tree.map(jnp.zeros_like, x), jnp.zeros((), jnp.int32))

    def __call__(
        self, x: AV, t: Array, cond: Cond, step: Array, memory: PlanMemory
    ) -> tuple[AV, PlanMemory]:
        """(eps, memory); counted from the first call inside the interval, which is always fresh."""
        del step
        eps = self.denoise(x, t, cond)
        low, high = self.plan.interval or (0, jnp.iinfo(jnp.int32).max)
        inside = (t[0] >= low) & (t[0] <= high)
        fresh = inside & (memory.count % self.plan.every == 0)
        r = jax.lax.cond(fresh, lambda: self.residual(x, t, cond), lambda: memory.residual)
        guided = add(eps, r, self.scales)
        out = {m: jnp.where(inside, guided[m], eps[m]) for m in eps}
        return out, PlanMemory(r, memory.count + inside)
