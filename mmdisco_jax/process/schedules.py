# SPDX-License-Identifier: Apache-2.0
"""Variance-preserving noise schedules: linear, scaled linear and cosine.

x_t = alpha(t) x_0 + sigma(t) eps, with alpha^2 = abar and sigma^2 = 1 - abar. Tables are computed
in double precision and rounded to float32 at the end: near t = 0, 1 - abar is 1e-4 and would lose
three digits if it were subtracted in float32.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from mmdisco_jax.types import Array


@dataclasses.dataclass(frozen=True, eq=False)
class Schedule:
    """Variance-preserving noise schedule with T discrete levels.

    Solvers also need levels between those of the table. A level of floating type belongs to the
    continuous schedule whose log alpha is linear between the integers (DPM-Solver, Lu et al. 2022,
    appendix D.1). Levels outside 0..T-1 count as the nearest end.

    Attributes:
      abar: float64 [T], the cumulative product of 1 - beta, strictly decreasing inside (0, 1).
      settings: name and arguments of the function that made it, for records and errors.

    Raises:
      ValueError: `abar` is not such a table.
    """

    abar: np.ndarray
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        table = np.asarray(self.abar, np.float64)
        inside = table.ndim == 1 and len(table) and table[-1] > 0 and table[0] < 1
        if not inside or not np.all(np.diff(table) < 0):
            raise ValueError(
                f"a schedule's abar must fall strictly inside (0, 1); got shape {table.shape} from "
                f"{table.ravel()[:1]} to {table.ravel()[-1:]}. Check beta_start and beta_end."
            )
        object.__setattr__(self, "abar", table)

    @property
    def num_timesteps(self) -> int:
        """Number of levels, T."""
        return len(self.abar)

    def digest(self) -> str:
        """Return a SHA-256 of the table, rounded so that the last bits of a double do not matter.

        Weights are stored with it, because a network is of no use under another schedule.
        """
        rounded = np.stack([self.abar, 1 - self.abar]).astype("<f4")
        return hashlib.sha256(rounded.tobytes()).hexdigest()

    def alpha(self, t: Array) -> Array:
        """Compute sqrt(abar(t)), of t's shape; float32 for integer t, else in t's precision."""
        if jnp.issubdtype(jnp.result_type(t), jnp.floating):
            return jnp.exp(self._log_alpha(t))
        return jnp.asarray(np.sqrt(self.abar), jnp.float32)[t]

    def sigma(self, t: Array) -> Array:
        """Compute sqrt(1 - abar(t)), of t's shape; float32 for integer t, else t's precision."""
        if jnp.issubdtype(jnp.result_type(t), jnp.floating):
            return jnp.sqrt(-jnp.expm1(2 * self._log_alpha(t)))
        return jnp.asarray(np.sqrt(1.0 - self.abar), jnp.float32)[t]

    def _log_alpha(self, t: Array) -> Array:
        table = jnp.asarray(0.5 * np.log(self.abar), t.dtype)
        return jnp.interp(t, jnp.arange(len(table), dtype=t.dtype), table)

    def log_snr(self, t: Array) -> Array:
        """Compute lambda(t) = log(alpha / sigma) at floating levels t, in t's precision."""
        log_alpha = self._log_alpha(t)
        return log_alpha - 0.5 * jnp.log(-jnp.expm1(2 * log_alpha))

    def level(self, log_snr: Array) -> Array:
        """Invert `log_snr`: return the floating level t at which log(alpha / sigma) has a value."""
        log_alpha = -0.5 * jnp.logaddexp(0.0, -2 * log_snr)
        rising = jnp.asarray(0.5 * np.log(self.abar[::-1]), log_snr.dtype)
        return jnp.interp(log_alpha, rising, jnp.arange(len(rising), dtype=log_snr.dtype)[::-1])

    def abar_between(self, t: np.ndarray) -> np.ndarray:
        """Compute abar at floating levels t, on the host in float64."""
        return np.exp(np.interp(t, np.arange(self.num_timesteps), np.log(self.abar)))

    def level_between(self, log_snr: np.ndarray) -> np.ndarray:
        """Compute `level` on the host in float64."""
        log_abar = -np.logaddexp(0.0, -2 * np.asarray(log_snr))
        levels = np.arange(self.num_timesteps, dtype=np.float64)
        return np.interp(log_abar, np.log(self.abar[::-1]), levels[::-1])


def from_betas(betas: np.ndarray, settings: Mapping[str, Any] | None = None) -> Schedule:
    """Build a schedule from beta [T], the variance of the noise that each step adds."""
    return Schedule(np.cumprod(1.0 - np.asarray(betas, np.float64)), settings or {})


def linear(num_timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
    """Linear noise schedule: beta is linear in t (Ho et al. 2020).

    `num_timesteps` levels, from `beta_start` at the first to `beta_end` at the last.
    """
    settings = _settings("linear", num_timesteps, beta_start=beta_start, beta_end=beta_end)
    return from_betas(np.linspace(beta_start, beta_end, num_timesteps), settings)


def scaled_linear(num_timesteps: int, beta_start: float, beta_end: float) -> Schedule:
    """Scaled-linear noise schedule: sqrt(beta) linear in t (latent diffusion, Rombach et al. 2022).

    `num_timesteps` levels, from `beta_start` at the first to `beta_end` at the last.
    """
    settings = _settings("scaled_linear", num_timesteps, beta_start=beta_start, beta_end=beta_end)
    return from_betas(np.linspace(beta_start**0.5, beta_end**0.5, num_timesteps) ** 2, settings)


def cosine(num_timesteps: int = 1000, offset: float = 0.008, max_beta: float = 0.999) -> Schedule:
    """Cosine noise schedule: abar(t) is a squared cosine (Nichol and Dhariwal 2021, equation 17).

    `offset` keeps the first betas from being too small, and `max_beta` limits the last ones.
    """
    u = np.arange(num_timesteps + 1) / num_timesteps
    curve = np.cos((u + offset) / (1 + offset) * np.pi / 2) ** 2
    settings = _settings("cosine", num_timesteps, offset=offset, max_beta=max_beta)
    return from_betas(np.minimum(1 - curve[1:] / curve[:-1], max_beta), settings)


def _settings(name: str, num_timesteps: int, **arguments: float) -> dict[str, Any]:
    return {"name": name, "num_timesteps": num_timesteps, **arguments}
