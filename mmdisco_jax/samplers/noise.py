# SPDX-License-Identifier: Apache-2.0
"""Noise of samplers: a function of (step, draw, modality, shape).

It is passed in, so that a recorded noise can replace the keyed one.
"""

import dataclasses
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmdisco_jax.types import AV, Array

# draw: 2 j for the re-noising before substep j, 2 j + 1 for the substep. It and step may be traced.
NoiseFn = Callable[[Array, Any, str, tuple[int, ...]], Array]
_START = -1


def sample_keys(seed: int | Array, indices: Array) -> Array:
    """Random keys of samples [b]: a sample depends on its index, never on its batch.

    seed: an integer, or a key.
    """
    is_key = isinstance(seed, jax.Array) and jnp.issubdtype(seed.dtype, jax.dtypes.prng_key)
    root = seed if is_key else jax.random.key(seed)
    return jax.vmap(lambda i: jax.random.fold_in(root, i))(indices)


def keyed(keys: Array) -> NoiseFn:
    """Standard normal noise from per-sample keys [b]; a callable pytree."""
    return Keyed(keys)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Keyed:
    """Standard normal noise, each sample's a function of its own key; made by `keyed`."""

    keys: Array

    def __call__(self, step: Array, draw: Any, modality: str, shape: tuple[int, ...]) -> Array:
        def one(key: Array) -> Array:
            for part in (zlib.crc32(modality.encode()) & 0x7FFFFFFF, draw & 0x7FFFFFFF, step):
                key = jax.random.fold_in(key, part)
            return jax.random.normal(key, shape[1:])

        return jax.vmap(one)(self.keys)


def initial(keys: Array, shapes: Mapping[str, tuple[int, ...]]) -> AV:
    """x_T [b, *shape] of each modality, from the same keys as the steps' noise."""
    noise = keyed(keys)
    batch = keys.shape[0]
    return {m: noise(jnp.int32(0), _START, m, (batch, *s)) for m, s in shapes.items()}
