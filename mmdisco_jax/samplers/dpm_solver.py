# SPDX-License-Identifier: Apache-2.0
"""DPM-Solver++ 2M (Lu et al. 2022, 2211.01095, algorithm 2): second order, one call per step."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.samplers.api import Row, alpha_sigma, check_clip, levels, predict_x0
from mmdisco_jax.types import Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class DPMSolverPP2M:
    """clip: limit of |x0|, or None. The first and the last step are of first order."""

    clip: float | None = None

    def __post_init__(self):
        check_clip(self.clip)

    def tables(self, schedule: Schedule, timesteps: np.ndarray) -> dict[str, np.ndarray]:
        now, after = levels(schedule, timesteps)
        log_snr = 0.5 * (np.log(now) - np.log1p(-now))
        # e^-h of the step to the clean signal is 0: x_next is x0 itself.
        shrink = np.append(np.exp(log_snr[:-1] - log_snr[1:]), 0.0)
        h = np.diff(log_snr)
        extrapolate = np.zeros(len(now))
        # Half of h_i / h_{i-1} for inner steps: the last one has h infinite and stays first order.
        extrapolate[1:-1] = 0.5 * h[1:] / h[:-1]
        return alpha_sigma(now, after) | {
            "from_x": np.sqrt((1 - after) / (1 - now)),
            "from_x0": np.sqrt(after) * (1 - shrink),
            "extrapolate": extrapolate,
        }

    def init(self, x: Array) -> Array:
        return jnp.zeros_like(x)

    def step(
        self, x: Array, eps: Array, row: Row, memory: Array, noise: Array
    ) -> tuple[Array, Array]:
        del noise
        x0 = predict_x0(x, eps, row, self.clip)
        blend = x0 + row["extrapolate"] * (x0 - memory)
        return row["from_x"] * x + row["from_x0"] * blend, x0
