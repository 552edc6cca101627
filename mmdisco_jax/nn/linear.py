# SPDX-License-Identifier: Apache-2.0
"""A linear map of the last axis whose compute dtype is that of its input."""

import jax.numpy as jnp
from flax import nnx
from jax import Array

from mmdisco_jax.nn.conv import KERNEL_INIT


class Linear(nnx.Module):
    """[... i] -> [... o]; computed in the dtype of the input, whatever the parameters have."""

    def __init__(
        self, in_features: int, out_features: int, *, use_bias: bool = True, rngs: nnx.Rngs
    ):
        self.kernel = nnx.Param(KERNEL_INIT(rngs.params(), (in_features, out_features)))
        self.bias = nnx.Param(jnp.zeros(out_features)) if use_bias else None

    def __call__(self, x: Array) -> Array:
        y = x @ self.kernel[...].astype(x.dtype)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)
