# SPDX-License-Identifier: Apache-2.0
"""Parameter-free modules that hold an index in a list of layers, so that official names match."""

import jax
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
