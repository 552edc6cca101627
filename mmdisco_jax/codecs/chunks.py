# SPDX-License-Identifier: Apache-2.0
"""A function of a batch, computed piece by piece: the memory is that of one piece."""

from collections.abc import Callable

import jax
from jax import Array


def map_chunks(function: Callable[[Array], Array], x: Array, chunk: int | None) -> Array:
    """`function(x)` of x [n ...] for a function that treats each of the n alone: [n ...].

    Args:
      chunk: how many are computed at once; None for all. n need not be a multiple of it, but a
        rest is compiled a second time. Devices that share x along n would have to exchange it:
        let each map its own.

    Raises:
      ValueError: chunk < 1.
    """
    if chunk is None or len(x) <= chunk:
        return function(x)
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}; it must be at least 1, or None for all at once.")
    return jax.lax.map(lambda one: function(one[None])[0], x, batch_size=chunk)
