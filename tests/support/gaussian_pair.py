# SPDX-License-Identifier: Apache-2.0
"""A correlated Gaussian pair: exact marginal predictors, log-ratio and joint predictor."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from mmdisco_jax.process.schedules import Schedule, linear
from mmdisco_jax.types import AV, Array, Cond

ORDER = ("audio", "video")


@dataclasses.dataclass(frozen=True)
class JointGaussian:
    """Scalars [b 1] of given means and stds; two modalities may have two schedules."""

    correlation: float = 0.8
    means: tuple[float, float] = (0.0, 0.0)
    stds: tuple[float, float] = (1.0, 1.0)
    schedules: tuple[Schedule, Schedule] = (linear(), linear())

    @property
    def by_modality(self) -> dict[str, Schedule]:
        return dict(zip(ORDER, self.schedules, strict=True))

    def _at(self, x: AV, t: Array):
        """Deviation from the mean, std at t, alpha * std_0 and sigma, each a pair of [b 1]."""
        alpha = [s.alpha(t)[:, None] for s in self.schedules]
        sigma = [s.sigma(t)[:, None] for s in self.schedules]
        signal = [a * std for a, std in zip(alpha, self.stds, strict=True)]
        std = [jnp.sqrt(s**2 + n**2) for s, n in zip(signal, sigma, strict=True)]
        delta = [x[m] - a * mu for m, a, mu in zip(ORDER, alpha, self.means, strict=True)]
        return delta, std, signal, sigma

    def marginals(self, x: AV, t: Array, cond: Cond = None) -> AV:
        """eps of each modality on its own: sigma (x - mean) / variance."""
        delta, std, _, sigma = self._at(x, t)
        return {m: sigma[i] * delta[i] / std[i] ** 2 for i, m in enumerate(ORDER)}

    def log_ratio(self, x: AV, t: Array, cond: Cond = None) -> Array:
        """log q(a, v) - log p(a) - log p(v), [b], up to a function of t."""
        delta, std, signal, _ = self._at(x, t)
        rho = self.correlation * signal[0] * signal[1] / (std[0] * std[1])
        a, v = (d / s for d, s in zip(delta, std, strict=True))
        return ((rho * a * v - 0.5 * rho**2 * (a**2 + v**2)) / (1 - rho**2))[:, 0]

    def joint_float64(self, x: AV, t: np.ndarray) -> dict[str, np.ndarray]:
        """The joint model's eps = diag(sigma) covariance^-1 (x - mean), in double precision."""
        abar = np.stack([s.abar[t] for s in self.schedules], axis=-1)
        alpha, sigma, stds = np.sqrt(abar), np.sqrt(1 - abar), np.array(self.stds)
        clean = np.diag(stds) @ [[1, self.correlation], [self.correlation, 1]] @ np.diag(stds)
        covariance = alpha[:, :, None] * clean * alpha[:, None] + np.eye(2) * (1 - abar)[:, None]
        pair = np.concatenate([np.asarray(x[m], np.float64) for m in ORDER], axis=1)
        delta = pair - alpha * np.array(self.means)
        eps = sigma * np.linalg.solve(covariance, delta[..., None])[..., 0]
        return {m: eps[:, i : i + 1] for i, m in enumerate(ORDER)}
