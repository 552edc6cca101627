# SPDX-License-Identifier: Apache-2.0
"""Discriminator of two scalars: a perceptron on waves of each and of the noise level."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
from flax import nnx

from mmdisco_jax.nn.time_embedding import sinusoidal_embedding
from mmdisco_jax.types import AV, Array, Cond


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyDiscriminatorSpec:
    """Width and depth of the perceptron; waves x, sin(2^k x), cos(2^k x) with k < num_waves."""

    width: int
    depth: int
    num_waves: int
    time_width: int = 16

    def __post_init__(self):
        for name in ("width", "depth", "num_waves"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")


class ToyDiscriminator(nnx.Module):
    """Log-ratio network of the toy worlds; 0 everywhere before training.

    x_t {audio [b 1], video [b 1]}, t [b] -> logit [b].
    """

    def __init__(self, spec: ToyDiscriminatorSpec, *, rngs: nnx.Rngs):
        self.spec = spec
        features = 2 * (1 + 2 * spec.num_waves) + spec.time_width
        sizes = [features, *[spec.width] * spec.depth]
        self.hidden = nnx.List([nnx.Linear(i, o, rngs=rngs) for i, o in itertools.pairwise(sizes)])
        zero = nnx.initializers.zeros_init()
        self.last_linear = nnx.Linear(spec.width, 1, kernel_init=zero, rngs=rngs)

    def __call__(self, x_t: AV, t: Array, cond: Cond = None) -> Array:
        del cond  # unconditional
        pair = jnp.concatenate([x_t[m] for m in sorted(x_t)], axis=-1)
        angle = (pair[..., None] * 2.0 ** jnp.arange(self.spec.num_waves)).reshape(len(t), -1)
        level = sinusoidal_embedding(t, self.spec.time_width)
        h = jnp.concatenate([pair, jnp.sin(angle), jnp.cos(angle), level], axis=-1)
        for layer in self.hidden:
            h = jax.nn.silu(layer(h))
        return self.last_linear(h)[:, 0]
