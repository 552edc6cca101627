# SPDX-License-Identifier: Apache-2.0
"""Variational bound as the loss of a learned variance (Nichol and Dhariwal 2021, section 3.1)."""

import jax
import jax.numpy as jnp
import numpy as np

from mmdisco_jax.process.posterior import posterior
from mmdisco_jax.process.predictions import per_sample
from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.types import Array

_HALF_BIN = 1 / 255  # half the width of a bin of 8-bit pixels in [-1, 1]
_EDGE = 0.999  # the bins of values beyond it extend to infinity
_LEAST = 1e-12  # smallest probability of a bin


def variational_bound(x0: Array, error: Array, v: Array, t: Array, schedule: Schedule) -> Array:
    """Compute the term of the variational bound at timestep t, for a learned variance.

    At t > 0 it is the divergence of p(x_{t-1} | x_t) from the posterior q(x_{t-1} | x_t, x_0). At
    t = 0 it is the negative log-likelihood of x_0, discretised in bins of width 2/255. As in the
    official code, these bins serve every modality, and the lower variance at t = 0, which would be
    0, is that of t = 1. Gradients flow into v alone.

    Args:
      x0: clean samples [b ...], in [-1, 1].
      error: predicted minus true eps, [b ...]; it determines the mean of p.
      v: variance of p, [b ...]: its log is interpolated between the posterior variance, at -1, and
        beta, at 1 (equation 15).
      t: timesteps int32 [b].

    Returns:
      [b], in bits per dimension.

    Raises:
      ValueError: the schedule has a single level, and thus no range of variances.
    """
    if schedule.num_timesteps < 2:
        raise ValueError("a learned variance needs a schedule of at least 2 levels, got 1.")
    before = np.append(1.0, schedule.abar[:-1])
    q = posterior(schedule.abar, before)
    small = np.append(q.small[1], q.small[1:])
    # The error of p's mean is that of x_0, which is sigma / alpha times that of eps, times from_x0.
    shift = q.from_x0 * np.sqrt((1 - schedule.abar) / schedule.abar)
    error = jax.lax.stop_gradient(error)

    def at(table: np.ndarray) -> Array:
        return per_sample(jnp.asarray(table, jnp.float32)[t], error)

    wider = 0.5 * (v + 1) * at(np.log(q.large / small))  # log variance of p over that of q
    log_variance = at(np.log(small)) + wider
    off = at(shift) * error
    kl = 0.5 * (wider + jnp.expm1(-wider) + jnp.square(off) * jnp.exp(-log_variance))
    first = per_sample(t == 0, error)
    # At t > 0 the error may be many bins wide; 0 keeps the unused branch's gradients finite.
    nll = -_log_bin(x0, jnp.where(first, off, 0.0), 0.5 * log_variance)
    nats = jnp.where(first, nll, kl)
    return nats.mean(tuple(range(1, nats.ndim))) / np.log(2)


def _log_bin(x: Array, centred: Array, log_std: Array) -> Array:
    """Log probability of x's bin under a Gaussian whose mean is `centred` below x."""
    upper, lower = (_cdf((centred + side) * jnp.exp(-log_std)) for side in (_HALF_BIN, -_HALF_BIN))
    upper = jnp.where(x > _EDGE, 1.0, upper)
    lower = jnp.where(x < -_EDGE, 0.0, lower)
    return jnp.log(jnp.maximum(upper - lower, _LEAST))


def _cdf(x: Array) -> Array:
    """Standard normal distribution function, approximated by a tanh as in the official code."""
    return 0.5 * (1 + jnp.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
