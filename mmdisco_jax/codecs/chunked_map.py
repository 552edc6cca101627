# SPDX-License-Identifier: Apache-2.0
"""Chunked map: compute a function of a batch in chunks, to bound the memory that it takes."""

from collections.abc import Callable

import jax
from jax import Array


def map_chunks(function: Callable[[Array], Array], x: Array, chunk: int | None) -> Array:
    """Compute function(x) for x [n ...], `chunk` samples at a time.

    If x is sharded along n, map inside a `shard_map`: chunks would mix the devices' samples.

    Args:
      function: must treat each of the n samples independently.
      chunk: number of samples computed at once; None for all. n need not be a multiple of it, but
        the function is compiled a second time for the remainder.

    Returns:
      [n ...].

    Raises:
      ValueError: chunk < 1.
    """
    if chunk is None or len(x) <= chunk:
        return function(x)
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}; it must be at least 1, or None for all at once.")
    return jax.lax.map(lambda one: function(one[None])[0], x, batch_size=chunk)
