# SPDX-License-Identifier: Apache-2.0
"""DDPM ancestral sampling (Ho et al. 2020, equations 6 and 7), with the posterior's variance."""

import dataclasses

import numpy as np

from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.samplers.api import Row, alpha_sigma, check_clip, levels, predict_x0
from mmdisco_jax.types import Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDPM:
    """clip: limit of |x0|, or None.

    stride: the previous level is t - stride, as in the official scheduler, whose last step goes to
    the clean signal only if t - stride < 0; None means the grid's next level.
    """

    clip: float | None = None
    stride: int | None = None

    def __post_init__(self):
        check_clip(self.clip)

    def tables(self, schedule: Schedule, timesteps: np.ndarray) -> dict[str, np.ndarray]:
        now, after = levels(schedule, timesteps)
        if self.stride is not None:
            before = np.asarray(timesteps) - self.stride
            after = np.where(before >= 0, schedule.abar[np.maximum(before, 0)], 1.0)
        beta = 1 - now / after
        variance = np.maximum((1 - after) / (1 - now) * beta, 1e-20)
        return alpha_sigma(now, after) | {
            "from_x0": np.sqrt(after) * beta / (1 - now),
            "from_x": np.sqrt(now / after) * (1 - after) / (1 - now),
            "spread": np.where(np.asarray(timesteps) > 0, np.sqrt(variance), 0.0),
        }

    def init(self, x: Array) -> None:
        del x

    def step(
        self, x: Array, eps: Array, row: Row, memory: None, noise: Array
    ) -> tuple[Array, None]:
        x0 = predict_x0(x, eps, row, self.clip)
        return row["from_x0"] * x0 + row["from_x"] * x + row["spread"] * noise, memory
