# SPDX-License-Identifier: Apache-2.0
"""Loss-aware timestep sampling (Nichol and Dhariwal 2021, section 3.3)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmdisco_jax.types import Array


class History(NamedTuple):
    """Last losses at each timestep.

    Attributes:
      losses: float32 [T n], oldest first.
      counts: how many of them have been seen, int32 [T], at most n.
    """

    losses: Array
    counts: Array

    def full(self) -> Array:
        """Tell which timesteps have n losses: bool [T]."""
        return self.counts == self.losses.shape[-1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossSecondMoment:
    """Importance sampler of timesteps: p(t) is proportional to the rms of the last losses at t.

    This is guided-diffusion's LossSecondMomentResampler, as pure functions of a history. Timesteps
    are uniform until each of them has `num_losses`. After that a share `uniform` stays uniform, so
    that no timestep is neglected. The weights 1 / (T p(t)) keep the expected loss unchanged.

    Raises:
      ValueError: a count below 1, or a share outside (0, 1].
    """

    num_timesteps: int
    num_losses: int = 10
    uniform: float = 0.001

    def __post_init__(self):
        if self.num_timesteps < 1 or self.num_losses < 1 or not 0 < self.uniform <= 1:
            raise ValueError(
                "levels by their losses need num_timesteps >= 1, num_losses >= 1 and a uniform "
                f"share in (0, 1], got {self}."
            )

    def init(self) -> History:
        """Return the history before the first loss."""
        shape = (self.num_timesteps, self.num_losses)
        return History(jnp.zeros(shape), jnp.zeros(self.num_timesteps, jnp.int32))

    def probabilities(self, history: History) -> Array:
        """Compute the probability of each timestep, float32 [T]."""
        size = jnp.sqrt(jnp.square(history.losses).mean(-1))
        mixed = (1 - self.uniform) * size / size.sum() + self.uniform / self.num_timesteps
        return jnp.where(history.full().all(), mixed, 1 / self.num_timesteps)

    def draw(self, history: History, key: Array, batch_size: int) -> tuple[Array, Array]:
        """Draw timesteps int32 [b] in 0..T-1, and the weights [b] of their samples in the loss."""
        p = self.probabilities(history)
        t = jax.random.choice(key, self.num_timesteps, (batch_size,), p=p).astype(jnp.int32)
        return t, 1 / (self.num_timesteps * p[t])

    def update(self, history: History, t: Array, losses: Array) -> History:
        """Append the losses [b] at timesteps t [b], as if they had come one after the other.

        Several samples of a batch may have the same timestep; each gets a slot of its own.
        """
        losses = jax.lax.stop_gradient(losses)
        counts, last = history.counts, self.num_losses - 1
        total = counts + jnp.zeros_like(counts).at[t].add(1)
        dropped = jnp.maximum(total - self.num_losses, 0)
        before = jnp.arange(self.num_losses) + dropped[:, None]  # old slot of each kept loss
        old = jnp.take_along_axis(history.losses, jnp.minimum(before, last), axis=-1)
        earlier = jnp.tril(t[:, None] == t[None, :], -1).sum(-1)  # samples before, at the same t
        slot = counts[t] + earlier - dropped[t]
        # If a batch has more samples of one timestep than slots, the first are dropped. They are
        # sent out of range, because a negative slot would count from the end.
        slot = jnp.where(slot < 0, self.num_losses, slot)
        return History(old.at[t, slot].set(losses, mode="drop"), total - dropped)
