# SPDX-License-Identifier: Apache-2.0
"""Forward noising for training: timestep sampling, noise, and errors averaged by noise level."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from mmdisco_jax.process.predictions import per_sample
from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.types import AV, Array


class LevelSampler(Protocol):
    """Protocol of samplers of training timesteps, which may adapt to the losses that they see.

    A sampler is a pure function of its history, an array tree that the training state carries; it
    is None for samplers that do not adapt.
    """

    @property
    def num_timesteps(self) -> int: ...

    def init(self) -> Any:
        """Return the history before the first loss."""
        ...

    def draw(self, history: Any, key: Array, batch_size: int) -> tuple[Array, Array]:
        """Draw timesteps int32 [b] in 0..T-1, and the weights [b] of their samples in the loss."""
        ...

    def update(self, history: Any, t: Array, losses: Array) -> Any:
        """Return the history extended by the losses [b] at timesteps t [b]."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeSampler:
    """Uniform timestep sampler: a share `focus` falls in [low, high), the rest in 0..T-1.

    The focused share spends more gradient on the levels where the content of a sample is decided;
    the rest keeps every level trained.

    Raises:
      ValueError: the share is not in 0..1, or the range is empty or not within 0..T.
    """

    num_timesteps: int
    focus: float = 0.0
    low: int = 0
    high: int = 0

    def __post_init__(self):
        if not 0.0 <= self.focus <= 1.0:
            raise ValueError(f"the focused share must be in 0..1, got {self.focus}.")
        if self.focus and not 0 <= self.low < self.high <= self.num_timesteps:
            raise ValueError(
                f"focused noise levels need 0 <= low < high <= {self.num_timesteps}, "
                f"got low={self.low}, high={self.high}."
            )

    def __call__(self, key: Array, batch_size: int) -> Array:
        """Draw timesteps, int32 [batch_size] in 0..T-1."""
        pick, wide, narrow = jax.random.split(key, 3)
        t = jax.random.randint(wide, (batch_size,), 0, self.num_timesteps)
        if not self.focus:
            return t
        focused = jax.random.randint(narrow, (batch_size,), self.low, self.high)
        return jnp.where(jax.random.uniform(pick, (batch_size,)) < self.focus, focused, t)

    # The other methods of a LevelSampler; this one does not adapt, and all weights are 1.
    def init(self) -> None:
        return None

    def draw(self, history: None, key: Array, batch_size: int) -> tuple[Array, Array]:
        return self(key, batch_size), jnp.ones(batch_size)

    def update(self, history: None, t: Array, losses: Array) -> None:
        return None


def draw_noise(key: Array, x0: AV) -> AV:
    """Draw standard normal noise of x0's shapes, with one key per modality."""
    keys = jax.random.split(key, len(x0))
    return {m: jax.random.normal(k, x0[m].shape) for k, m in zip(keys, sorted(x0), strict=True)}


def add_noise(x0: AV, eps: AV, t: Array, schedules: Mapping[str, Schedule]) -> AV:
    """Noise a pair: x_t = alpha(t) x_0 + sigma(t) eps, each modality by its own schedule.

    Args:
      x0, eps: {modality: [b ...]}.
      t: timesteps [b], shared by the modalities.
    """
    return {m: noisy(x0[m], eps[m], t, schedules[m]) for m in x0}


def noisy(x0: Array, eps: Array, t: Array, schedule: Schedule) -> Array:
    """Noise one modality: x_t = alpha(t) x_0 + sigma(t) eps, for x0 and eps [b ...], t [b]."""
    return per_sample(schedule.alpha(t), x0) * x0 + per_sample(schedule.sigma(t), x0) * eps


def mean_by_level(
    values: Mapping[str, Array], t: Array, num_timesteps: int, num_bins: int = 10
) -> dict[str, Array]:
    """Average per-sample values in equal bins of the noise level, for logging.

    A loss hides at which noise levels a network is good; these means show it.

    Args:
      values: {name: [b]}.
      t: timesteps int32 [b] in 0..num_timesteps-1.

    Returns:
      {"name/bin": mean}, where the mean of an empty bin is nan.
    """
    one_hot = (t[:, None] * num_bins // num_timesteps == jnp.arange(num_bins)).astype(jnp.float32)
    count = one_hot.sum(0)
    means = {}
    for name, value in values.items():
        mean = (one_hot * value[:, None]).sum(0) / count
        means |= {f"{name}/{i}": mean[i] for i in range(num_bins)}
    return means
