# SPDX-License-Identifier: Apache-2.0
"""A sampler from outside: Euler's method on x / alpha, as k-diffusion writes it."""

import dataclasses
from typing import ClassVar

import numpy as np

from mmdisco_jax.samplers.api import alpha_sigma


@dataclasses.dataclass(frozen=True, kw_only=True)
class Euler:
    """x / alpha moves by eps times the change of sigma / alpha; `scale` multiplies eps."""

    staged: ClassVar[bool] = False
    learned_variance: ClassVar[bool] = False

    scale: float = 1.0

    def tables(self, schedule, levels) -> dict[str, np.ndarray]:
        now, after = levels.abar(schedule)
        ratio = np.sqrt(1 / after - 1) - np.sqrt(1 / now - 1)
        return alpha_sigma(now, after) | {"alpha_next": np.sqrt(after), "change": ratio}

    def init(self, x):
        return None

    def step(self, x, eps, row, state, noise):
        scaled = x / row["alpha"] + row["change"] * self.scale * eps
        return row["alpha_next"] * scaled, state
