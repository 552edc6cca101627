# SPDX-License-Identifier: Apache-2.0
"""Denoisers for sampler tests: an exact Gaussian, and a network-like function of awkward shapes."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from mmdisco_jax.process.predictions import per_sample
from mmdisco_jax.process.schedules import Schedule, linear, scaled_linear
from mmdisco_jax.samplers.noise import NoiseFn
from mmdisco_jax.types import AV, Array, Cond, DenoiseFn


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """x_0 ~ N(mean, std^2) elementwise: exact eps, and the exact end of the deterministic flow."""

    schedule: Schedule
    mean: float = 0.3
    std: float = 0.5

    def eps(self, x: AV, t: Array, cond: Cond = None) -> AV:
        """In x's precision, float64 included."""
        out = {}
        for m, v in x.items():
            abar = per_sample(jnp.asarray(self.schedule.abar, v.dtype)[t], v)
            variance = abar * self.std**2 + 1 - abar
            out[m] = jnp.sqrt(1 - abar) * (v - jnp.sqrt(abar) * self.mean) / variance
        return out

    def flow(self, x_T: np.ndarray, start: int, stop: int) -> np.ndarray:
        """x_start carried by the exact flow to level `stop`, then to its predicted signal."""
        abar = self.schedule.abar[[start, stop]]
        variance, alpha = abar * self.std**2 + 1 - abar, np.sqrt(abar)
        x = (x_T - alpha[0] * self.mean) * np.sqrt(variance[1] / variance[0])
        return self.mean + alpha[1] * self.std**2 / variance[1] * x


SCHEDULES = {"audio": linear(), "video": scaled_linear(1000, 0.00085, 0.012)}
SHAPES = {"audio": (6, 2), "video": (3, 2, 2, 1)}


def network() -> DenoiseFn:
    """A fixed nonlinear mixing of both modalities within a sample, with products of matrices.

    It is a model of a bounded signal, as a trained one is: steps neither grow nor amplify rounding.
    """
    rng = np.random.default_rng(0)
    weights = jnp.asarray(rng.standard_normal((24, 24)) / 5, jnp.float32)

    def denoise(x: AV, t: Array, cond: Cond = None) -> AV:
        flat = jnp.concatenate([x[m].reshape(len(t), -1) for m in sorted(x)], axis=1)
        h = jnp.tanh(jnp.tanh(flat @ weights + per_sample(t, flat) / 1000) @ weights)
        signal = {"audio": h[:, :12], "video": h[:, 12:]}
        alpha = {m: per_sample(SCHEDULES[m].alpha(t), x[m]) for m in x}
        sigma = {m: per_sample(SCHEDULES[m].sigma(t), x[m]) for m in x}
        return {m: (x[m] - alpha[m] * signal[m].reshape(x[m].shape)) / sigma[m] for m in x}

    return denoise


def no_noise() -> NoiseFn:
    return lambda step, draw, modality, shape: jnp.zeros(shape)


@dataclasses.dataclass(frozen=True)
class Continuous(Gaussian):
    """The same Gaussian, told levels between those of the table too."""

    def eps(self, x: AV, t: Array, cond: Cond = None) -> AV:
        out = {}
        for m, v in x.items():
            alpha = per_sample(self.schedule.alpha(t), v)
            sigma = per_sample(self.schedule.sigma(t), v)
            variance = (alpha * self.std) ** 2 + sigma**2
            out[m] = sigma * (v - alpha * self.mean) / variance
        return out

    def flow(self, x_T: np.ndarray, start: int | None = None, stop: int = 0) -> np.ndarray:
        """x_start (T - 1 unless given) carried by the exact flow to level `stop`."""
        ends = [self.schedule.num_timesteps - 1 if start is None else start, stop]
        abar = self.schedule.abar[ends]
        variance, alpha = abar * self.std**2 + 1 - abar, np.sqrt(abar)
        x = (x_T - alpha[0] * self.mean) * np.sqrt(variance[1] / variance[0])
        return alpha[1] * self.mean + x
