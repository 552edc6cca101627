# SPDX-License-Identifier: Apache-2.0
"""Basic layers: linear map, activations, dropout, sequential and rematerialised application.

PyTorch checkpoints number the layers of a `Sequential`, activations and dropouts included. The
ports mirror them as lists of layers, so activations are modules here: each one takes up the index
that it has in the checkpoint.
"""

from collections.abc import Collection, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from mmdisco_jax.nn.conv import KERNEL_INIT


class Linear(nnx.Module):
    """Linear map of the last axis: [... i] -> [... o].

    Unlike `nnx.Linear`, it computes in the dtype of its input, so that a network with float32
    parameters runs in bfloat16 when its input is bfloat16.
    """

    def __init__(
        self, in_features: int, out_features: int, *, use_bias: bool = True, rngs: nnx.Rngs
    ):
        self.kernel = nnx.Param(KERNEL_INIT(rngs.params(), (in_features, out_features)))
        self.bias = nnx.Param(jnp.zeros(out_features)) if use_bias else None

    def __call__(self, x: Array) -> Array:
        y = x @ self.kernel[...].astype(x.dtype)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


class SiLU(nnx.Module):
    """SiLU activation, x * sigmoid(x), for any shape."""

    def __call__(self, x: Array) -> Array:
        return jax.nn.silu(x)


class GELU(nnx.Module):
    """Exact GELU activation (with erf, PyTorch's default) for any shape."""

    def __call__(self, x: Array) -> Array:
        return jax.nn.gelu(x, approximate=False)


class Identity(nnx.Module):
    """Identity layer. Takes the place of an identity or a zero-rate dropout in a checkpoint."""

    def __call__(self, x: Array) -> Array:
        return x


class Dropout(nnx.Module):
    """Dropout with an explicit key: zeroes a share `rate` of x and rescales the rest; any shape.

    The same key drops the same elements, so a rematerialised backward pass sees the mask of the
    forward pass. Without a key x passes unchanged.
    """

    def __init__(self, rate: float):
        self.rate = rate

    def __call__(self, x: Array, key: Array | None = None) -> Array:
        if key is None or self.rate == 0:
            return x
        keep = jax.random.bernoulli(key, 1 - self.rate, x.shape)
        return jnp.where(keep, x / (1 - self.rate), 0)


def chain(layers: Iterable[Any], x: Array) -> Array:
    """Apply `layers` to x, one after the other."""
    for layer in layers:
        x = layer(x)
    return x


def remat_call(block: Any, recomputed: Collection[str], *args: Any) -> Any:
    """Call block(*args), and recompute it in the backward pass if its `kind` is in `recomputed`.

    Rematerialisation trades time for memory. The choice is made by kind of block, because blocks
    differ in how much memory their activations take and in how long they take to recompute.

    Args:
      block: a module with an attribute `kind`. Everything that it depends on must be among its
        parameters or `args`.
      args: arrays, trees of arrays, or None.
    """
    if block.kind not in recomputed:
        return block(*args)
    graphdef, params = nnx.split(block)
    return jax.checkpoint(lambda params, *args: nnx.merge(graphdef, params)(*args))(params, *args)
