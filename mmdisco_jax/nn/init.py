# SPDX-License-Identifier: Apache-2.0
"""Initialisation of NNX modules: parameter keys, abstract modules, compiled initialisers."""

import functools
from collections.abc import Callable, Hashable
from typing import cast

import jax
from flax import nnx
from jax import Array

# key -> random parameters
Init = Callable[[Array], nnx.State]


class _Keys:
    """Stand-in for `nnx.Rngs` that yields the same keys but counts in Python.

    `nnx.Rngs` counts in an array. When modules are built under a trace (`jit`, `eval_shape`), each
    count makes JAX search all that has been traced so far: the cost is quadratic, and a hundred
    layers take a second.
    """

    def __init__(self, key: Array):
        self._key, self._count = key, 0

    def params(self) -> Array:
        key = jax.random.fold_in(self._key, self._count)
        self._count += 1
        return key


def param_keys(key: Array | int) -> nnx.Rngs:
    """Make the `rngs` argument for the constructor of one module.

    Args:
      key: a random key, or a seed for one. The keys derived from it are those of `nnx.Rngs`.
    """
    return cast(nnx.Rngs, _Keys(jax.random.key(key) if isinstance(key, int) else key))


@functools.lru_cache(maxsize=32)  # a large network takes seconds
def skeleton(make: Callable[..., nnx.Module], *args: Hashable) -> tuple[nnx.GraphDef, nnx.State]:
    """Return the graph definition and parameter shapes of the module `make(*args, rngs=...)`.

    No parameter is allocated, so a checkpoint can be loaded into the module without initialising
    it first.
    """
    return nnx.split(nnx.eval_shape(lambda: make(*args, rngs=param_keys(0))))


def definition(make: Callable[..., nnx.Module], *args: Hashable) -> tuple[nnx.GraphDef, Init]:
    """Return the graph definition of `make(*args, rngs=...)` and its compiled initialiser.

    The initialiser maps a random key to parameters.
    """
    graphdef, _ = skeleton(make, *args)
    return graphdef, jax.jit(lambda key: nnx.split(make(*args, rngs=param_keys(key)))[1])
