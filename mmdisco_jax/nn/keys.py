# SPDX-License-Identifier: Apache-2.0
"""Keys for the parameters of a large network."""

import jax
from flax import nnx

from mmdisco_jax.types import Array


class CountedRngs(nnx.Rngs):
    """`nnx.Rngs` of one stream that counts its keys in Python.

    The counter of `nnx.Rngs` is an array. Under a trace (`nnx.eval_shape`, `jit`) each increment
    searches the whole trace, and making a network of 1,000 tensors takes half a minute.
    """

    def __init__(self, key: Array):
        super().__init__(key)
        self.first_key = key
        self.drawn = 0

    def params(self) -> Array:
        self.drawn += 1
        return jax.random.fold_in(self.first_key, self.drawn)
