# SPDX-License-Identifier: Apache-2.0
"""A discriminator from outside, of any number of modalities with any names."""

import jax.numpy as jnp
from flax import nnx


class Means(nnx.Module):
    """x {modality: [b ... c]}, t [b] -> logit [b], from the means of products of channels."""

    def __init__(self, channels: dict[str, int], width: int, *, rngs: nnx.Rngs):
        self.own = nnx.Dict({m: nnx.Linear(c, width, rngs=rngs) for m, c in channels.items()})
        self.out = nnx.Linear(width, 1, rngs=rngs)

    def __call__(self, x, t, cond=None):
        h = jnp.reshape(1 - t / 1000, (-1, 1))
        for m, layer in self.own.items():
            h = h * jnp.tanh(layer(x[m])).mean(tuple(range(1, x[m].ndim - 1)))
        return self.out(h)[:, 0]


def build(formats, *, rngs: nnx.Rngs, width: int = 8) -> Means:
    return Means({m: f.shape[-1] for m, f in formats.items()}, width, rngs=rngs)
