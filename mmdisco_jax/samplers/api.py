# SPDX-License-Identifier: Apache-2.0
"""What a stepper is: how one modality moves from one noise level to the next.

A stepper is a frozen dataclass of hyper-parameters. Its coefficients are tables made on the host in
double precision, one row per step; `step` is a pure function of a row.
"""

from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np

from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.types import Array

Row = dict[str, Array]


class Stepper(Protocol):
    """One modality's update rule."""

    def tables(self, schedule: Schedule, timesteps: np.ndarray) -> dict[str, np.ndarray]:
        """Coefficients, float64 [n] each, for timesteps [n], largest first."""
        ...

    def init(self, x: Array) -> Any:
        """What the stepper remembers before the first step."""
        ...

    def step(self, x: Array, eps: Array, row: Row, memory: Any, noise: Array) -> tuple[Array, Any]:
        """The sample [b ...] at the next noise level, and the memory."""
        ...


def levels(schedule: Schedule, timesteps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """abar at each timestep and at the one after it (1, the clean signal, after the last)."""
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
    x0 = (x - row["sigma"] * eps) / row["alpha"]
    return x0 if clip is None else jnp.clip(x0, -clip, clip)


def alpha_sigma(now: np.ndarray, after: np.ndarray) -> dict[str, np.ndarray]:
    """The columns that every stepper's tables have."""
    return {"alpha": np.sqrt(now), "sigma": np.sqrt(1 - now), "abar_next": after}


def check_clip(clip: float | None) -> None:
    if clip is not None and clip <= 0:
        raise ValueError(f"clip limits |x0| and must be positive or None, got {clip}.")
