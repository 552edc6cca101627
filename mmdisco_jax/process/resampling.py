# SPDX-License-Identifier: Apache-2.0
"""Noise levels drawn where the loss is large (Nichol and Dhariwal 2021, section 3.3)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmdisco_jax.types import Array


class History(NamedTuple):
    """The last losses of each level, oldest first: losses float32 [T n], counts int32 [T] <= n."""

    losses: Array
    counts: Array

    def full(self) -> Array:
        """bool [T]: levels that have all their losses."""
        return self.counts == self.losses.shape[-1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossSecondMoment:
    """Draws level t with p(t) proportional to the root of its last losses' mean square.

    The official LossSecondMomentResampler as pure functions of its history. Levels are uniform
    until each of them has `num_losses`; after that a share `uniform` stays uniform, so that no
    level is forgotten. The weights 1 / (T p(t)) keep the expected loss that of uniform levels.
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
        """No loss seen yet."""
        shape = (self.num_timesteps, self.num_losses)
        return History(jnp.zeros(shape), jnp.zeros(self.num_timesteps, jnp.int32))

    def probabilities(self, history: History) -> Array:
        """float32 [T]."""
        size = jnp.sqrt(jnp.square(history.losses).mean(-1))
        mixed = (1 - self.uniform) * size / size.sum() + self.uniform / self.num_timesteps
        return jnp.where(history.full().all(), mixed, 1 / self.num_timesteps)

    def draw(self, history: History, key: Array, batch_size: int) -> tuple[Array, Array]:
        """Levels int32 [b] in 0..T-1, and their samples' weights in the loss [b]."""
        p = self.probabilities(history)
        t = jax.random.choice(key, self.num_timesteps, (batch_size,), p=p).astype(jnp.int32)
        return t, 1 / (self.num_timesteps * p[t])

    def update(self, history: History, t: Array, losses: Array) -> History:
        """With the losses [b] of levels t [b], as if they had come one after the other."""
        losses = jax.lax.stop_gradient(losses)
        counts, last = history.counts, self.num_losses - 1
        total = counts + jnp.zeros_like(counts).at[t].add(1)
        dropped = jnp.maximum(total - self.num_losses, 0)
        before = jnp.arange(self.num_losses) + dropped[:, None]  # slots of before
        old = jnp.take_along_axis(history.losses, jnp.minimum(before, last), axis=-1)
        earlier = jnp.tril(t[:, None] == t[None, :], -1).sum(-1)  # rows of the same level
        slot = counts[t] + earlier - dropped[t]
        # Of more rows than slots the first go: outside, as slots below 0 would count from the end.
        slot = jnp.where(slot < 0, self.num_losses, slot)
        return History(old.at[t, slot].set(losses, mode="drop"), total - dropped)
