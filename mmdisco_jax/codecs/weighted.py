# SPDX-License-Identifier: Apache-2.0
"""Codecs that are networks: their weights are arguments, and `Loaded` gives them the protocol.

A codec with weights is a frozen dataclass of sizes with `encode(params, x)`, `decode(params, x)`
and `abstract`, the shapes of params. `Loaded` joins it to its weights: an object with the
`encode(x)` and `decode(x)` that every other codec has.
"""

import dataclasses
import functools
from typing import Any

import jax
from jax import Array
from numpy.typing import ArrayLike

from mmdisco_jax.types import Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Loaded:
    """A codec and its weights, a pytree of the weights.

    Both methods are compiled once per codec and shape. Inside another jit, pass this object as an
    argument: what a compiled function closes over is part of its program.
    """

    codec: Any = dataclasses.field(metadata={"static": True})
    params: Params

    def encode(self, x: ArrayLike) -> Array:
        return _encode(self.codec, self.params, x)

    def decode(self, x: ArrayLike) -> Array:
        return _decode(self.codec, self.params, x)


@functools.partial(jax.jit, static_argnums=0)
def _encode(codec: Any, params: Params, x: Array) -> Array:
    return codec.encode(params, x)


@functools.partial(jax.jit, static_argnums=0)
def _decode(codec: Any, params: Params, x: Array) -> Array:
    return codec.decode(params, x)
