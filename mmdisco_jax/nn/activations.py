# SPDX-License-Identifier: Apache-2.0
"""Parameter-free modules that hold an index in a list of layers, so that official names match."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array


class SiLU(nnx.Module):
    """x * sigmoid(x), any shape."""

    def __call__(self, x: Array) -> Array:
        return jax.nn.silu(x)


class GELU(nnx.Module):
    """The exact GELU (erf), as PyTorch's default; any shape."""

    def __call__(self, x: Array) -> Array:
        return jax.nn.gelu(x, approximate=False)


class Identity(nnx.Module):
    """x itself; stands where the official code has an identity or a dropout of rate 0."""

    def __call__(self, x: Array) -> Array:
        return x


class Dropout(nnx.Module):
    """Zeros a share `rate` of the elements and scales the rest by 1 / (1 - rate); any shape.

    Only with a key: the same key drops the same elements, and without one x passes unchanged.
    """

    def __init__(self, rate: float):
        self.rate = rate

    def __call__(self, x: Array, key: Array | None = None) -> Array:
        if key is None or self.rate == 0:
            return x
        keep = jax.random.bernoulli(key, 1 - self.rate, x.shape)
        return jnp.where(keep, x / (1 - self.rate), 0)
