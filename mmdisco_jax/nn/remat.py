# SPDX-License-Identifier: Apache-2.0
"""Rematerialisation by kind of block: what the backward pass computes again instead of keeping."""

from collections.abc import Collection
from typing import Any

import jax
from flax import nnx


def call(block: Any, recomputed: Collection[str], *args: Any) -> Any:
    """block(*args), computed again in the backward pass if `block.kind` is among `recomputed`.

    All that the block depends on must be parameters or arguments (arrays, trees of them, None).
    """
    if block.kind not in recomputed:
        return block(*args)
    graphdef, params = nnx.split(block)
    return jax.checkpoint(lambda params, *args: nnx.merge(graphdef, params)(*args))(params, *args)
