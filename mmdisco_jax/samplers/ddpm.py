# SPDX-License-Identifier: Apache-2.0
"""DDPM ancestral sampling (Ho et al. 2020, equations 6 and 7), on any path of levels."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from mmdisco_jax.process.posterior import posterior
from mmdisco_jax.process.predictions import split_variance
from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.samplers.api import Row, alpha_sigma, check_clip, predict_x0
from mmdisco_jax.samplers.levels import Levels
from mmdisco_jax.types import Array

VARIANCES = ("fixed_small", "fixed_large", "learned_range")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDPM:
    """Steps to a random sample of the level before; a path of few levels is a respaced process.

    Attributes:
      clip: limit of |x0|, or None.
      stride: the previous level is t - stride, as in the official scheduler, whose last step goes
        to the clean signal only if t - stride < 0; None means the path's next level.
      variance: "fixed_small": the posterior's, (1 - abar_s) / (1 - abar_t) beta. "fixed_large":
        beta = 1 - abar_t / abar_s, the official one of MM-Diffusion's base. "learned_range": the
        model chooses between the two, in log, per element (Nichol and Dhariwal 2021, equation 15):
        its output is [b ... 2c], the noise and then v in [-1, 1], -1 for the small one. No variance
        adds noise in a step to the clean signal.
    """

    clip: float | None = None
    stride: int | None = None
    variance: str = "fixed_small"

    def __post_init__(self):
        check_clip(self.clip)
        if self.variance not in VARIANCES:
            known = ", ".join(VARIANCES)
            raise ValueError(f"unknown variance {self.variance!r}: choose one of {known}.")

    @property
    def staged(self) -> bool:
        return False

    @property
    def learned_variance(self) -> bool:
        return self.variance == "learned_range"

    def tables(self, schedule: Schedule, levels: Levels) -> dict[str, np.ndarray]:
        now, after = levels.abar(schedule)
        noisy = after < 1
        if self.stride is not None:
            if not levels.are_whole:
                raise ValueError(
                    f"stride {self.stride} goes with whole noise levels, but these lie between: "
                    "use None, or `levels`."
                )
            before = levels.times - self.stride
            after = np.where(before >= 0, schedule.abar[np.maximum(before, 0)], 1.0)
            noisy = levels.times > 0
        q = posterior(now, after)
        small = np.maximum(q.small, 1e-20)
        chosen = q.large if self.variance == "fixed_large" else small
        return alpha_sigma(now, after) | {
            "from_x0": q.from_x0,
            "from_x": q.from_x,
            "spread": np.where(noisy, np.sqrt(chosen), 0.0),
            # Half the logarithm of large / small: spread e^(0 to this) is the learned range.
            "range": np.where(noisy, 0.5 * np.log(q.large / small), 0.0),
        }

    def init(self, x: Array) -> None:
        del x

    def step(self, x: Array, eps: Array, row: Row, state: None, noise: Array) -> tuple[Array, None]:
        spread = row["spread"]
        if self.variance == "learned_range":
            eps, v = split_variance(eps, x)
            spread = spread * jnp.exp(0.5 * (v + 1) * row["range"])
        x0 = predict_x0(x, eps, row, self.clip)
        return row["from_x0"] * x0 + row["from_x"] * x + spread * noise, state
