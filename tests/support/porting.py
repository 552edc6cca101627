# SPDX-License-Identifier: Apache-2.0
"""The inverse of `porting.place`, for tests."""

from typing import Any

import numpy as np
from flax import nnx

from mmdisco_jax import parallel
from mmdisco_jax.porting.lazy import LazyTensor, LazyTensors
from mmdisco_jax.porting.load import Overrides
from mmdisco_jax.porting.place import as_torch


def unplace(params: nnx.State, *, overrides: Overrides | None = None) -> LazyTensors:
    """Converts parameters, concrete or abstract, to PyTorch names and layouts, lazily."""

    def entry(leaf: Any) -> LazyTensor:
        return LazyTensor(tuple(leaf.shape), np.dtype(leaf.dtype), lambda: np.asarray(leaf))

    leaves = parallel.named_leaves(params)
    held = LazyTensors({name: entry(leaf) for name, leaf in leaves.items()})
    return as_torch(params, held, overrides=overrides)
