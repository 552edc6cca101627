# SPDX-License-Identifier: Apache-2.0
"""Adding noise for training: which levels, and the noisy pair."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from mmdisco_jax.process.predictions import per_sample
from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.types import AV, Array


class LevelSampler(Protocol):
    """Draws noise levels, perhaps by what it keeps of earlier losses: its history, or None."""

    @property
    def num_timesteps(self) -> int: ...

    def init(self) -> Any:
        """The history before the first loss."""
        ...

    def draw(self, history: Any, key: Array, batch_size: int) -> tuple[Array, Array]:
        """Levels int32 [b] in 0..T-1, and their samples' weights in the loss [b]."""
        ...

    def update(self, history: Any, t: Array, losses: Array) -> Any:
        """The history with the losses [b] of levels t [b]."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeSampler:
    """Draws noise levels: a share `focus` uniform in [low, high), the rest uniform in 0..T-1.

    The share buys gradient where the content of a sample is decided; the rest keeps every level
    trained.
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
        """int32 [batch_size] in 0..T-1."""
        pick, wide, narrow = jax.random.split(key, 3)
        t = jax.random.randint(wide, (batch_size,), 0, self.num_timesteps)
        if not self.focus:
            return t
        focused = jax.random.randint(narrow, (batch_size,), self.low, self.high)
        return jnp.where(jax.random.uniform(pick, (batch_size,)) < self.focus, focused, t)

    # The rest of a LevelSampler: one that learns nothing from the losses, and weighs none.
    def init(self) -> None:
        return None

    def draw(self, history: None, key: Array, batch_size: int) -> tuple[Array, Array]:
        return self(key, batch_size), jnp.ones(batch_size)

    def update(self, history: None, t: Array, losses: Array) -> None:
        return None


def draw_noise(key: Array, x0: AV) -> AV:
    """Standard normal noise of x0's shapes, one key per modality."""
    keys = jax.random.split(key, len(x0))
    return {m: jax.random.normal(k, x0[m].shape) for k, m in zip(keys, sorted(x0), strict=True)}


def add_noise(x0: AV, eps: AV, t: Array, schedules: Mapping[str, Schedule]) -> AV:
    """x_t = alpha(t) x_0 + sigma(t) eps, each modality by its own schedule; t is [b]."""
    return {m: noisy(x0[m], eps[m], t, schedules[m]) for m in x0}


def noisy(x0: Array, eps: Array, t: Array, schedule: Schedule) -> Array:
    """One modality of `add_noise`."""
    return per_sample(schedule.alpha(t), x0) * x0 + per_sample(schedule.sigma(t), x0) * eps
