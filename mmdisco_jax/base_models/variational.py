# SPDX-License-Identifier: Apache-2.0
"""The variational bound as a loss of learned variances (Nichol and Dhariwal 2021, section 3.1)."""

import jax
import jax.numpy as jnp
import numpy as np

from mmdisco_jax.process.posterior import posterior
from mmdisco_jax.process.predictions import per_sample
from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.types import Array

# Half a bin of 8-bit pixels in [-1, 1]; beyond the edges the first and last bin are open.
_HALF_BIN = 1 / 255
_EDGE = 0.999
_LEAST = 1e-12  # probability of a bin


def variational_bound(x0: Array, error: Array, v: Array, t: Array, schedule: Schedule) -> Array:
    """The bound's term of level t, [b] in bits per dimension; its gradient reaches v alone.

    At t > 0 the divergence of p(x_{t-1} | x_t) from the posterior q(x_{t-1} | x_t, x_0), at t = 0
    the negative log-likelihood of x_0's bins of width 2/255. As in the official code, these are the
    bins of every modality, and the lower variance of t = 0, which would be 0, is that of t = 1.

    Args:
      x0: clean samples [b ...]; the bins at t = 0 are of values in [-1, 1].
      error: predicted minus true eps [b ...]; the mean of p follows from it.
      v: the variance in p, [b ...]: in log between the posterior's, -1, and beta, 1 (equation 15).
      t: int32 [b].

    Raises:
      ValueError: a schedule of one level, which has no range of variances.
    """
    if schedule.num_timesteps < 2:
        raise ValueError("a learned variance needs a schedule of at least 2 levels, got 1.")
    before = np.append(1.0, schedule.abar[:-1])
    q = posterior(schedule.abar, before)
    small = np.append(q.small[1], q.small[1:])
    # The error of p's mean is that of its x_0, sigma / alpha of eps' error, times from_x0.
    shift = q.from_x0 * np.sqrt((1 - schedule.abar) / schedule.abar)
    error = jax.lax.stop_gradient(error)

    def at(table: np.ndarray) -> Array:
        return per_sample(jnp.asarray(table, jnp.float32)[t], error)

    wider = 0.5 * (v + 1) * at(np.log(q.large / small))  # log variance of p over that of q
    log_variance = at(np.log(small)) + wider
    off = at(shift) * error
    kl = 0.5 * (wider + jnp.expm1(-wider) + jnp.square(off) * jnp.exp(-log_variance))
    first = per_sample(t == 0, error)
    # Elsewhere the bins' distances would be large beyond use, and so would their gradients.
    nll = -_log_bin(x0, jnp.where(first, off, 0.0), 0.5 * log_variance)
    nats = jnp.where(first, nll, kl)
    return nats.mean(tuple(range(1, nats.ndim))) / np.log(2)


def _log_bin(x: Array, centred: Array, log_std: Array) -> Array:
    """log p of x's bin under a Gaussian that lies `centred` below x."""
    upper, lower = (_cdf((centred + side) * jnp.exp(-log_std)) for side in (_HALF_BIN, -_HALF_BIN))
    upper = jnp.where(x > _EDGE, 1.0, upper)
    lower = jnp.where(x < -_EDGE, 0.0, lower)
    return jnp.log(jnp.maximum(upper - lower, _LEAST))


def _cdf(x: Array) -> Array:
    """The standard normal distribution function by a tanh, as the official code has it."""
    return 0.5 * (1 + jnp.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
