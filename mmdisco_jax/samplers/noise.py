# SPDX-License-Identifier: Apache-2.0
"""Where a sampler's noise comes from: a function of (step, draw, modality, shape).

Passed in, so that a recorded noise can replace the keyed one.
"""

import zlib
from collections.abc import Callable
from typing import Any

import jax

from mmdisco_jax.types import AV, Array

# draw: 2 j for the re-noising before substep j, 2 j + 1 for the substep. It and step may be traced.
NoiseFn = Callable[[Array, Any, str, tuple[int, ...]], Array]
_START = -1


def sample_keys(seed: int, indices: Array) -> Array:
    """One key per sample [b]: a sample depends on its index, never on its batch."""
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(indices)


def keyed(keys: Array) -> NoiseFn:
    """Standard normal noise from per-sample keys [b]."""

    def noise(step: Array, draw: Any, modality: str, shape: tuple[int, ...]) -> Array:
        def one(key: Array) -> Array:
            for part in (zlib.crc32(modality.encode()) & 0x7FFFFFFF, draw & 0x7FFFFFFF, step):
                key = jax.random.fold_in(key, part)
            return jax.random.normal(key, shape[1:])

        return jax.vmap(one)(keys)

    return noise


def initial(keys: Array, shapes: dict[str, tuple[int, ...]]) -> AV:
    """x_T [b, *shape] of each modality, from the same keys as the steps' noise."""
    noise = keyed(keys)
    batch = keys.shape[0]
    return {m: noise(jax.numpy.int32(0), _START, m, (batch, *s)) for m, s in shapes.items()}
