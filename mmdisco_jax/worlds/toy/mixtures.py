# SPDX-License-Identifier: Apache-2.0
"""Gaussian mixtures of two scalars with exact joint and marginal noise predictors.

A mixture of correlated Gaussians stays one under the forward process, so scores, log-ratios and
samples have closed forms. The worlds here are the toy experiments' data; their marginals, kept or
disturbed, are the frozen base models. `[b 1]` per modality.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.types import AV, Array, Cond, DenoiseFn, LogRatioFn

ORDER = ("audio", "video")
NUM_COMPONENTS = 16  # of every world, padded with weight 0, so that worlds stack under vmap


class Mixture(NamedTuple):
    """Components of a joint density: log_weights [k], means and stds [k 2], correlations [k]."""

    log_weights: Array
    means: Array
    stds: Array
    correlations: Array

    def sample(self, key: Array, batch_size: int) -> AV:
        """Draws pairs {modality: [batch_size, 1]}."""
        pick, draw = jax.random.split(key)
        k = jax.random.categorical(pick, self.log_weights, shape=(batch_size,))
        z, rho = jax.random.normal(draw, (batch_size, 2)), self.correlations[k]
        z = jnp.stack([z[:, 0], rho * z[:, 0] + jnp.sqrt(1 - rho**2) * z[:, 1]], axis=1)
        x = self.means[k] + self.stds[k] * z
        return {m: x[:, i : i + 1] for i, m in enumerate(ORDER)}

    def disturbed(self, shift: float, widen: float) -> "Mixture":
        """Mixture as of another domain: means moved by `shift`, variances raised by widen^2."""
        stds = jnp.sqrt(self.stds**2 + widen**2)
        shrink = self.stds[:, 0] * self.stds[:, 1] / (stds[:, 0] * stds[:, 1])
        return Mixture(self.log_weights, self.means + shift, stds, self.correlations * shrink)


def _standardised(x: AV, t: Array, mixture: Mixture, schedules: dict[str, Schedule]):
    """z [b k 2] of x_t under each component, and the components' alpha and std [b k 2] at t."""
    alpha = jnp.stack([schedules[m].alpha(t) for m in ORDER], axis=-1)[:, None]
    sigma = jnp.stack([schedules[m].sigma(t) for m in ORDER], axis=-1)[:, None]
    std = jnp.sqrt((alpha * mixture.stds) ** 2 + sigma**2)
    pair = jnp.concatenate([x[m] for m in ORDER], axis=-1)[:, None]
    return (pair - alpha * mixture.means) / std, alpha, std


def log_marginals(x: AV, t: Array, mixture: Mixture, schedules: dict[str, Schedule]) -> Array:
    """Marginal log p(x_t) of each modality on its own, [b 2], up to a constant."""
    z, _, std = _standardised(x, t, mixture, schedules)
    return logsumexp(mixture.log_weights[:, None] - 0.5 * z**2 - jnp.log(std), axis=1)


def log_joint(x: AV, t: Array, mixture: Mixture, schedules: dict[str, Schedule]) -> Array:
    """Joint log q(x_t) of the pair, [b], up to the same constant."""
    z, alpha, std = _standardised(x, t, mixture, schedules)
    shrink = (alpha * mixture.stds / std).prod(-1)  # noise is independent and dilutes correlation
    rho = mixture.correlations * shrink
    quadratic = (z[..., 0] ** 2 - 2 * rho * z[..., 0] * z[..., 1] + z[..., 1] ** 2) / (1 - rho**2)
    log_scale = jnp.log(std).sum(-1) + 0.5 * jnp.log1p(-(rho**2))
    return logsumexp(mixture.log_weights - 0.5 * quadratic - log_scale, axis=1)


def exact_bases(mixture: Mixture, schedules: dict[str, Schedule]) -> DenoiseFn:
    """Exact marginal noise predictors of both modalities, eps_m = -sigma d log p(x_m) / d x_m."""

    def denoise(x: AV, t: Array, cond: Cond) -> AV:
        del cond
        grads = jax.grad(lambda pair: log_marginals(pair, t, mixture, schedules).sum())(x)
        return {m: -schedules[m].sigma(t)[:, None] * g for m, g in grads.items()}

    return denoise


def exact_log_ratio(mixture: Mixture, base: Mixture, schedules: dict[str, Schedule]) -> LogRatioFn:
    """Exact log-ratio log q(x_t) - log p(audio_t) - log p(video_t), which a head should learn."""

    def h(x: AV, t: Array, cond: Cond) -> Array:
        del cond
        joint = log_joint(x, t, mixture, schedules)
        return joint - log_marginals(x, t, base, schedules).sum(-1)

    return h


def _mixture(means: np.ndarray, std: float, correlations: np.ndarray | None = None) -> Mixture:
    count, padding = len(means), NUM_COMPONENTS - len(means)
    rho = np.zeros(count) if correlations is None else correlations
    weights = np.concatenate([np.full(count, -np.log(count)), np.full(padding, -np.inf)])
    arrays = (
        weights,
        np.pad(means, ((0, padding), (0, 0))),
        np.full((NUM_COMPONENTS, 2), std),
        np.pad(rho, (0, padding)),
    )
    return Mixture(*(jnp.asarray(a, jnp.float32) for a in arrays))


def _arc(start: float, stop: float, count: int) -> np.ndarray:
    angle = np.linspace(start, stop, count)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def ring() -> Mixture:
    """A circle: each value of one modality allows two of the other."""
    return _mixture(1.5 * _arc(0, 2 * np.pi * 15 / 16, 16), 0.2)


def moons() -> Mixture:
    """Two interleaved half circles."""
    upper, lower, apart = _arc(0, np.pi, 8), _arc(np.pi, 2 * np.pi, 8), np.array([0.5, 0.25])
    return _mixture(1.2 * np.concatenate([upper - apart, lower + apart]), 0.15)


def checker() -> Mixture:
    """The black cells of a 4 x 4 board: flat marginals, all content in the pairing."""
    cells = [(i, j) for i in range(4) for j in range(4) if (i + j) % 2 == 0]
    return _mixture(np.array(cells) - 1.5, 0.2)


def pairs() -> Mixture:
    """Five sounds, five pictures, one of each belonging together."""
    return _mixture(0.8 * (np.stack([np.arange(5), [2, 0, 3, 1, 4]], axis=1) - 2.0), 0.15)


def cross() -> Mixture:
    """Two Gaussians of correlation 0.95 and -0.95: the marginals are exactly normal."""
    return _mixture(np.zeros((2, 2)), 1.0, np.array([0.95, -0.95]))


WORLDS = {"ring": ring, "moons": moons, "checker": checker, "pairs": pairs, "cross": cross}
