# SPDX-License-Identifier: Apache-2.0
"""What a stepper is: how one modality moves from one noise level to the next.

A stepper is a frozen dataclass of hyper-parameters. Its coefficients are tables made on the host in
double precision, one row per step; `step` is a pure function of a row.
"""

from collections.abc import Collection
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np

from mmdisco_jax.process.predictions import per_sample, split_variance
from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.samplers.grids import TimeGrid
from mmdisco_jax.types import AV, Array, Cond, DenoiseFn

Row = dict[str, Array]
Times = np.ndarray | TimeGrid  # whole levels [n], on to the clean signal; or any levels


class Stepper(Protocol):
    """One modality's update rule."""

    def tables(self, schedule: Schedule, timesteps: Times) -> dict[str, np.ndarray]:
        """Coefficients, float64 [n] each, for timesteps [n], largest first.

        Columns of every stepper: `alpha` and `sigma` of the row's level, and `abar_next`.
        """
        ...

    def init(self, x: Array) -> Any:
        """What the stepper remembers before the first step."""
        ...

    def step(self, x: Array, eps: Array, row: Row, memory: Any, noise: Array) -> tuple[Array, Any]:
        """The sample [b ...] at the next noise level, and the memory."""
        ...


def levels(schedule: Schedule, timesteps: Times) -> tuple[np.ndarray, np.ndarray]:
    """abar at each timestep and at the one after it (1 where that is the clean signal)."""
    if isinstance(timesteps, TimeGrid):
        if timesteps.times[0] > schedule.num_timesteps - 1:
            raise ValueError(
                f"the grid starts at level {timesteps.times[0]}, but the schedule ends at "
                f"{schedule.num_timesteps - 1}: make the grid from a schedule of this length."
            )
        abar = schedule.abar_between(timesteps.nodes)
        return (abar, np.append(abar[1:], 1.0)) if timesteps.end is None else (abar[:-1], abar[1:])
    timesteps = np.asarray(timesteps)
    inside = timesteps.ndim == 1 and len(timesteps) and timesteps.min() >= 0
    if not inside or timesteps.max() >= schedule.num_timesteps or np.any(np.diff(timesteps) >= 0):
        raise ValueError(
            f"timesteps must fall strictly within 0..{schedule.num_timesteps - 1}, got {timesteps}."
        )
    now = schedule.abar[timesteps]
    return now, np.append(now[1:], 1.0)


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
    """A model with learned variances (twice the channels) as one of the noise alone.

    For samplers that have no use for a variance, and for guidance. `but` names modalities that keep
    theirs.
    """

    def fn(x: AV, t: Array, cond: Cond) -> AV:
        out = denoise(x, t, cond)
        return {m: out[m] if m in but else split_variance(out[m], x[m])[0] for m in x}

    return fn


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
