# SPDX-License-Identifier: Apache-2.0
"""Modules with random parameters, made in numpy: an initialiser takes XLA longer to compile than
the network itself, and a network at its start passes nothing through its last, zero layers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


def random_params(abstract: Any, seed: int = 0) -> Any:
    """Numbers for a tree of shapes: normal, 1 / sqrt(fan in) for kernels, 0.1 for the rest."""
    rng = np.random.default_rng(seed)

    def draw(leaf: Any) -> jax.Array:
        scale = leaf.shape[-2] ** -0.5 if len(leaf.shape) > 1 else 0.1
        return jnp.asarray(scale * rng.standard_normal(leaf.shape), leaf.dtype)

    return jax.tree.map(draw, abstract)


def random_module(make: Callable[[], Any], seed: int = 0) -> Any:
    """Module of `make`, with `random_params` instead of its initialisers' numbers."""
    graphdef, abstract = nnx.split(nnx.eval_shape(make))
    return nnx.merge(graphdef, random_params(abstract, seed))
