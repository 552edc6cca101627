# SPDX-License-Identifier: Apache-2.0
"""The losses of base models: noise prediction, of one modality or of both."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmdisco_jax.base_models.variational import variational_bound
from mmdisco_jax.process.noising import (
    LevelSampler,
    TimeSampler,
    add_noise,
    draw_noise,
    mean_by_level,
    noisy,
)
from mmdisco_jax.process.predictions import split_variance
from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.types import AV, Array


def noise_prediction(
    eps_fn: Callable[[Array, Array], Array],
    x0: Array,
    key: Array,
    schedule: Schedule,
    time_sampler: TimeSampler,
    *,
    max_weight: float | None,
    num_bins: int = 10,
) -> tuple[Array, dict[str, Array]]:
    """Mean over the batch of w(t) |x0_hat - x0|^2, with w = min(1 / sigma^2, max_weight).

    The error of eps is alpha / sigma times that of x0, and that of v is 1 / sigma times: with no
    maximum this is the v-weighting of the noise-prediction loss (Salimans and Ho 2022); the maximum
    keeps the few cleanest levels from ruling the rest (min-SNR, Hang et al. 2023).

    Args:
      eps_fn: (x_t [b ...], t [b]) -> eps.
      x0: clean samples [b ...].
      num_bins: noise-level bins of the logged error `x0_error/<bin>` (an empty bin is nan).
    """
    key_t, key_noise = jax.random.split(key)
    t = time_sampler(key_t, x0.shape[0])
    eps = draw_noise(key_noise, {"x": x0})["x"]
    x_t = noisy(x0, eps, t, schedule)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    axes = tuple(range(1, x0.ndim))
    eps_error = jnp.square(eps_fn(x_t, t) - eps).mean(axes)
    x0_error = eps_error * jnp.square(sigma / alpha)
    metrics = mean_by_level({"x0_error": x0_error}, t, schedule.num_timesteps, num_bins)
    return jnp.mean(_eps_weight(schedule, t, max_weight) * eps_error), metrics


def _eps_weight(schedule: Schedule, t: Array, max_weight: float | None) -> Array:
    """The weight of eps' square error at levels t [b]: 1, or that of `noise_prediction`."""
    if max_weight is None:
        return jnp.ones(t.shape)
    ratio = jnp.square(schedule.sigma(t) / schedule.alpha(t))
    return ratio * jnp.minimum(1 / jnp.square(schedule.sigma(t)), max_weight)


def joint_noise_prediction(
    eps_fn: Callable[[AV, Array, Array], AV],
    x0: AV,
    key: Array,
    schedules: Mapping[str, Schedule],
    time_sampler: LevelSampler,
    history: Any = None,
    *,
    max_weight: float | None = None,
    learned_variance: bool = False,
    num_bins: int = 10,
) -> tuple[Array, dict[str, Array], Any]:
    """The mean square error of eps, summed over modalities (MM-Diffusion, Ruan et al. 2023, eq. 6).

    With `max_weight`, each sample's error is weighted as `noise_prediction` weights it. With
    `learned_variance` each modality adds its `variational_bound`, times T / 1000 (the official
    RESCALED_MSE; its plain MSE is the same at T = 1000).

    Args:
      eps_fn: (x_t {m: [b ...]}, t [b], key) -> eps; the level t is common to the modalities. With
        `learned_variance` [b ... 2c], eps and then the variance in its range.
      x0: clean pairs {m: [b ...]}.
      history: the time sampler's.
      num_bins: noise-level bins of the logged error `eps_error_<m>/<bin>` (an empty bin is nan).

    Returns:
      The loss; metrics, of which `loss_<m>` sum to the loss and `vb_<m>` is the bound's part of it;
      the history with this batch's losses, which are those before the time sampler's weights.
    """
    key_t, key_noise, key_model = jax.random.split(key, 3)
    batch = next(iter(x0.values())).shape[0]
    t, weights = time_sampler.draw(history, key_t, batch)
    eps = draw_noise(key_noise, x0)
    predicted = eps_fn(add_noise(x0, eps, t, schedules), t, key_model)
    total, metrics, losses = jnp.zeros(()), {}, jnp.zeros(batch)
    for m in sorted(x0):
        out, v = split_variance(predicted[m], x0[m]) if learned_variance else (predicted[m], None)
        error = jnp.square(out - eps[m]).mean(tuple(range(1, eps[m].ndim)))
        loss = error * _eps_weight(schedules[m], t, max_weight)
        if v is not None:
            bound = variational_bound(x0[m], out - eps[m], v, t, schedules[m])
            bound *= schedules[m].num_timesteps / 1000
            loss += bound
            metrics[f"vb_{m}"] = (weights * bound).mean()
        losses += loss
        metrics[f"loss_{m}"] = (weights * loss).mean()
        errors = {f"eps_error_{m}": error}
        metrics |= mean_by_level(errors, t, time_sampler.num_timesteps, num_bins)
        total += metrics[f"loss_{m}"]
    return total, metrics, time_sampler.update(history, t, losses)
