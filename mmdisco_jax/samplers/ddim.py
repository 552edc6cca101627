# SPDX-License-Identifier: Apache-2.0
"""DDIM (Song et al. 2021, equations 12 and 16): deterministic at eta 0, ancestral at eta 1."""

import dataclasses

import numpy as np

from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.samplers.api import Row, alpha_sigma, check_clip, predict_x0
from mmdisco_jax.samplers.levels import Levels
from mmdisco_jax.types import Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDIM:
    """DDIM sampler (Song et al. 2021), from deterministic to ancestral.

    Attributes:
      eta: share of the posterior's noise that a step adds, 0..1; 0 adds none.
      clip: limit of |x0|, or None.
    """

    eta: float = 0.0
    clip: float | None = None

    def __post_init__(self):
        if not 0.0 <= self.eta <= 1.0:
            raise ValueError(f"DDIM's eta must be in 0..1, got {self.eta}.")
        check_clip(self.clip)

    @property
    def staged(self) -> bool:
        return False

    @property
    def learned_variance(self) -> bool:
        return False

    def tables(self, schedule: Schedule, levels: Levels) -> dict[str, np.ndarray]:
        now, after = levels.abar(schedule)
        variance = self.eta**2 * (1 - after) / (1 - now) * (1 - now / after)
        return alpha_sigma(now, after) | {
            "alpha_next": np.sqrt(after),
            "direction": np.sqrt(np.maximum(1 - after - variance, 0.0)),
            "spread": np.sqrt(variance),
        }

    def init(self, x: Array) -> None:
        del x

    def step(self, x: Array, eps: Array, row: Row, state: None, noise: Array) -> tuple[Array, None]:
        x0 = predict_x0(x, eps, row, self.clip)
        if self.clip is not None:  # the noise that agrees with the limited signal
            eps = (x - row["alpha"] * x0) / row["sigma"]
        x = row["alpha_next"] * x0 + row["direction"] * eps
        return (x + row["spread"] * noise if self.eta else x), state
