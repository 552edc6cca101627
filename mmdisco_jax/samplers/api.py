# SPDX-License-Identifier: Apache-2.0
"""Interfaces of steppers and of planned denoisers, and the formulas that steppers share.

A stepper is a frozen dataclass of hyper-parameters. Its coefficients are tables made on the host in
double precision, one row per step; `step` is a pure function of a row.
"""

import dataclasses
from collections.abc import Collection
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from mmdisco_jax.callables import Static, unwrap_static, wrap_static
from mmdisco_jax.process.predictions import per_sample, split_variance
from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.samplers.levels import Levels
from mmdisco_jax.types import AV, Array, Cond, DenoiseFn

Row = dict[str, Array]


class Stepper(Protocol):
    """Update rule of one modality."""

    @property
    def staged(self) -> bool:
        """True if a step takes several rows, none of which can be repeated by itself."""
        ...

    @property
    def learned_variance(self) -> bool:
        """True if `step` takes [b ... 2c] of the model: the noise, and a variance."""
        ...

    def tables(self, schedule: Schedule, levels: Levels) -> dict[str, np.ndarray]:
        """Coefficients, float64 [n] each, one row per level.

        Columns of every stepper: `alpha` and `sigma` of the row's level, and `abar_next`.
        """
        ...

    def init(self, x: Array) -> Any:
        """The state before the first step: what the stepper carries from step to step."""
        ...

    def step(self, x: Array, eps: Array, row: Row, state: Any, noise: Array) -> tuple[Array, Any]:
        """The sample [b ...] at the next noise level, and the next state."""
        ...


@runtime_checkable
class PlannedDenoiser(Protocol):
    """Denoiser that does in some steps what it does not do in others, by a plan of the host's.

    A `Sampler` calls `planned` where there are columns, and the denoiser itself where there are
    none. `guidance.joint.Joint` is one.
    """

    def plan_columns(self, model_times: np.ndarray, num_substeps: int = 1) -> dict[str, np.ndarray]:
        """[n num_substeps] each, for the n levels that the model is told; {} without a plan."""
        ...

    def init(self, x: AV) -> Any:
        """State that it carries from call to call, before the first."""
        ...

    def planned(
        self, x: AV, t: Array, cond: Cond, now: dict[str, Array], carried: Any
    ) -> tuple[AV, Any]:
        """eps of one call and what to carry on; `now` has the columns' values [] for it."""
        ...


def predict_x0(x: Array, eps: Array, row: Row, clip: float | None) -> Array:
    """x_0 = (x - sigma eps) / alpha, limited to [-clip, clip] if asked."""
    return limited((x - row["sigma"] * eps) / row["alpha"], clip)


def limited(x0: Array, clip: float | None, quantile: float | None = None) -> Array:
    """A predicted signal [b ...] within [-clip, clip]; `clip` None leaves it as it is.

    quantile: dynamic thresholding (Saharia et al. 2022, 2205.11487, section 2.3): a sample of which
      more than this share's |x0| exceeds `clip` is scaled down, so that this quantile becomes
      `clip`; what still exceeds it is cut. One scale per sample (and modality).
    """
    if clip is None:
        return x0
    if quantile is None:
        return jnp.clip(x0, -clip, clip)
    spread = jnp.quantile(jnp.abs(x0).reshape(len(x0), -1), quantile, axis=1)
    spread = per_sample(jnp.maximum(spread, clip), x0)
    return jnp.clip(x0, -spread, spread) * (clip / spread)


def noise_only(denoise: DenoiseFn, but: Collection[str] = ()) -> DenoiseFn:
    """Noise predictor of a model with learned variances, which has twice the channels.

    For samplers that have no use for a variance, and for guidance. `but` names modalities that keep
    theirs. Returns a callable pytree.
    """
    return NoiseOnly(wrap_static(denoise), Static(frozenset(but)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class NoiseOnly:
    """Denoiser without its learned variances; made by `noise_only`."""

    denoise: Any
    but: Any

    def __call__(self, x: AV, t: Array, cond: Cond) -> AV:
        denoise, but = unwrap_static(self.denoise), unwrap_static(self.but)
        out = denoise(x, t, cond)
        return {m: out[m] if m in but else split_variance(out[m], x[m])[0] for m in x}


def alpha_sigma(now: np.ndarray, after: np.ndarray) -> dict[str, np.ndarray]:
    """The columns that every stepper's tables have."""
    return {"alpha": np.sqrt(now), "sigma": np.sqrt(1 - now), "abar_next": after}


def check_clip(clip: float | None) -> None:
    if clip is not None and clip <= 0:
        raise ValueError(f"clip limits |x0| and must be positive or None, got {clip}.")


def check_quantile(quantile: float | None, clip: float | None) -> None:
    if quantile is None:
        return
    if clip is None:
        raise ValueError(f"quantile {quantile} scales |x0| to clip: give a clip, such as 1.0.")
    if not 0 < quantile <= 1:
        raise ValueError(f"a quantile must be in (0, 1], got {quantile}.")
