# SPDX-License-Identifier: Apache-2.0
"""Keys for the initial parameters of modules, and modules without any parameters yet."""

import functools
from collections.abc import Callable, Hashable
from typing import cast

import jax
from flax import nnx
from jax import Array

# key -> random parameters
Init = Callable[[Array], nnx.State]


class _Keys:
    """Gives the keys that `nnx.Rngs(key).params()` gives, one after the other.

    Rngs counts in an array. Where modules are built under a trace (`jit`, `eval_shape`), each count
    makes JAX look through all that has been traced: a second for a hundred layers, and quadratic.
    """

    def __init__(self, key: Array):
        self._key, self._count = key, 0

    def params(self) -> Array:
        key = jax.random.fold_in(self._key, self._count)
        self._count += 1
        return key


def param_keys(key: Array | int) -> nnx.Rngs:
    """The `rngs` of a module's constructor, for one module; `key` may be a seed."""
    return cast(nnx.Rngs, _Keys(jax.random.key(key) if isinstance(key, int) else key))


@functools.lru_cache(maxsize=32)  # a large network takes seconds
def skeleton(make: Callable[..., nnx.Module], *args: Hashable) -> tuple[nnx.GraphDef, nnx.State]:
    """Graph definition and shapes of the parameters of the module `make(*args, rngs=...)`."""
    return nnx.split(nnx.eval_shape(lambda: make(*args, rngs=param_keys(0))))


def definition(make: Callable[..., nnx.Module], *args: Hashable) -> tuple[nnx.GraphDef, Init]:
    """Graph definition, and a compiled function key -> random parameters, of such a module."""
    graphdef, _ = skeleton(make, *args)
    return graphdef, jax.jit(lambda key: nnx.split(make(*args, rngs=param_keys(key)))[1])
