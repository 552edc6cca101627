# SPDX-License-Identifier: Apache-2.0
"""Joint guidance: the discriminator's gradient, added to the noise predictions of separate models.

The optimal discriminator's logit is h = log q(a, v) - log p(a) p(v), so the joint score is the base
score plus the gradient of h (MMDisCo, Hayakawa et al. 2025, arXiv 2405.17842). In terms of noise,

    eps_joint_m = eps_m + s_m r_m,      r_m = -sigma_m(t) dh/dx_m.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmdisco_jax.callables import Static, unwrap_static, wrap_static
from mmdisco_jax.guidance.scales import Scale, is_static, times
from mmdisco_jax.process.predictions import per_sample
from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.types import AV, Array, Cond, DenoiseFn, LogRatioFn

# (x, t, cond) -> {modality: [b ...]}: noise, or residuals of the noise
Field = Callable[[AV, Array, Cond], AV]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Schedule of the discriminator's evaluations.

    interval: noise levels [low, high] outside which samples are not guided (Kynkaanniemi et al.
      2024), or None for all. Levels are those that the models are told.
    every: evaluate on each `every`-th guided step and reuse the residual between.
    """

    interval: tuple[int, int] | None = None
    every: int = 1

    def __post_init__(self):
        if self.every < 1:
            raise ValueError(f"`every` must be at least 1 guided step, got {self.every}.")
        if self.interval is not None:
            low, high = self.interval
            if low > high:
                raise ValueError(f"a guidance interval is [low, high], got {(low, high)}.")
            object.__setattr__(self, "interval", (low, high))  # hashable, whatever was given


def joint(
    denoise: DenoiseFn,
    log_ratio: LogRatioFn,
    schedules: Mapping[str, Schedule],
    scales: Mapping[str, Scale],
    *,
    plan: Plan | None = None,
    text_guidance: Callable[[Field], Field] | None = None,
) -> DenoiseFn:
    """Joint guidance of a denoiser by a discriminator: eps_m + s_m r_m.

    Args:
      denoise, log_ratio: functions, or callable pytrees, whose arrays the compiled sampler then
        takes as arguments; arrays that both hold are shared.
      schedules: one per modality.
      scales: s of each modality: a number, which is static, or an array [] or [b], which may be
        traced. A modality without one has 0. A static 0 leaves the modality's noise as it is, bit
        for bit; if all are, the discriminator is not evaluated at all.
      plan: when the discriminator is evaluated; a `Sampler` follows it. Called by itself, the
        result is guided in the plan's interval and evaluates the discriminator each time.
      text_guidance: field -> field, applied to the denoiser and to the residuals, such as
        `lambda field: classifier_free(field, text_scales, uncond)`.

    Returns:
      (x, t, cond) -> {modality: eps [b ...]}, a callable pytree.

    Raises:
      ValueError: a scale of a modality that has no schedule.
    """
    unknown = sorted(set(scales) - set(schedules))
    if unknown:
        raise ValueError(
            f"there are guidance scales of {unknown}, but the modalities are {sorted(schedules)}: "
            "name scales by them."
        )
    guide = text_guidance or (lambda field: field)
    eps = guide(denoise)
    if all(is_static(s) and not s for s in scales.values()):
        return eps
    r = guide(residual(log_ratio, schedules))
    return Joint(
        wrap_static(eps), wrap_static(r), wrap_static(dict(scales)), Static(plan or Plan())
    )


def residual(log_ratio: LogRatioFn, schedules: Mapping[str, Schedule]) -> Field:
    """r_m = -sigma_m(t) dh/dx_m of every modality, by one gradient over the whole pair."""
    return Residual(wrap_static(log_ratio), wrap_static(dict(schedules)))


def add(eps: AV, r: AV, scales: Mapping[str, Scale]) -> AV:
    """eps_m + s_m r_m; a static scale of 0, or none, leaves eps_m as it is, bit for bit."""
    out = {}
    for m, e in eps.items():
        s = scales.get(m, 0)
        out[m] = e if is_static(s) and not s else e + times(s, r[m])
    return out


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Residual:
    """Residuals of the noise by a discriminator's gradient; made by `residual`."""

    log_ratio: Any
    schedules: Any

    def __call__(self, x: AV, t: Array, cond: Cond) -> AV:
        log_ratio, schedules = map(unwrap_static, (self.log_ratio, self.schedules))
        # The sum's gradient is each sample's own, because h does not mix samples.
        grads = jax.grad(lambda pair: log_ratio(pair, t, cond).sum())(x)
        return {m: -per_sample(schedules[m].sigma(t), g) * g for m, g in grads.items()}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Joint:
    """Denoiser under joint guidance, which a `Sampler` evaluates by its plan; made by `joint`.

    Its plan is known on the host, before sampling: whether a step is guided (`active`) and whether
    the discriminator is evaluated in it (`fresh`) are columns beside the steppers' coefficients.
    """

    denoise: Any
    residual: Any
    scales: Any
    plan: Any

    def __call__(self, x: AV, t: Array, cond: Cond) -> AV:
        denoise, r, scales, plan = self._parts()
        eps = denoise(x, t, cond)
        guided = add(eps, r(x, t, cond), scales)
        if plan.interval is None:
            return guided
        low, high = plan.interval
        inside = (t >= low) & (t <= high)
        return {m: jnp.where(per_sample(inside, eps[m]), guided[m], eps[m]) for m in eps}

    def plan_columns(self, model_times: np.ndarray, num_substeps: int = 1) -> dict[str, np.ndarray]:
        """`active` and `fresh`, bool [n num_substeps] each; {} if every call is a fresh one.

        Counted from the first call inside the interval, which is always fresh.
        """
        plan = unwrap_static(self.plan)
        if plan == Plan():
            return {}
        low, high = plan.interval or (-np.inf, np.inf)
        active = np.repeat((model_times >= low) & (model_times <= high), num_substeps)
        fresh = active & ((np.cumsum(active) - active) % plan.every == 0)
        shape = (len(model_times), num_substeps)
        return {"active": active.reshape(shape), "fresh": fresh.reshape(shape)}

    def init(self, x: AV) -> AV:
        """The residual that is carried between planned calls, at first none."""
        return jax.tree.map(jnp.zeros_like, x)

    def planned(
        self, x: AV, t: Array, cond: Cond, now: dict[str, Array], carried: AV
    ) -> tuple[AV, AV]:
        """(eps, residual to carry) of one call; `now` has the plan's columns for it, bool [].

        A residual that is skipped or reused is not computed.
        """
        denoise, r, scales, _ = self._parts()
        eps = denoise(x, t, cond)
        carried = jax.lax.cond(now["fresh"], lambda: r(x, t, cond), lambda: carried)
        guided = add(eps, carried, scales)
        return {m: jnp.where(now["active"], guided[m], eps[m]) for m in eps}, carried

    def _parts(self) -> Any:
        return map(unwrap_static, (self.denoise, self.residual, self.scales, self.plan))
