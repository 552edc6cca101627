# SPDX-License-Identifier: Apache-2.0
"""Sharded loading of weights: each tensor goes straight to its devices, one at a time."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from mmdisco_jax import parallel
from mmdisco_jax.porting.lazy import LazyTensor, LazyTensors, as_lazy
from mmdisco_jax.porting.load import Overrides, require_match
from mmdisco_jax.porting.names import TorchTensor, torch_tensor


def place(
    params: nnx.State,
    tensors: Mapping[str, np.ndarray],
    *,
    shardings: Any = None,
    dtype: DTypeLike | None = None,
    overrides: Overrides | None = None,
) -> nnx.State:
    """Fills parameters with the values of PyTorch tensors, on their devices.

    Each tensor is read, transposed to NNX's layout, cast, and placed before the next one is read.
    Each device receives only its own part.

    Args:
      params: state of the module, usually abstract (`nnx.eval_shape`).
      tensors: PyTorch name -> array in PyTorch's layout; `LazyTensors` save memory.
      shardings: tree like `params`, from `parallel.tree_shardings`; None for the default device.
      dtype: dtype of floating point parameters; None keeps those of `params`.
      overrides: dotted NNX path -> `TorchTensor`, where the naming rule fails.

    Raises:
      ValueError: missing or unexpected names, or wrong shapes; raised before anything is read.
    """
    lazy = as_lazy(tensors)
    leaves = parallel.named_leaves(params)
    wanted = {name: _torch_name(name, leaf, overrides) for name, leaf in leaves.items()}
    require_match(
        {wanted[name]: leaf.shape for name, leaf in leaves.items()},
        {name: entry.shape for name, entry in lazy.entries.items()},
    )
    targets = {} if shardings is None else parallel.named_leaves(shardings)

    def one(name: str) -> jax.Array:
        leaf, tensor = leaves[name], wanted[name]
        is_cast = dtype is not None and jnp.issubdtype(leaf.dtype, jnp.floating)
        array = np.transpose(lazy[tensor.name], tensor.inverse)
        array = array.astype(dtype if is_cast else leaf.dtype, copy=False)
        if shardings is None:
            return jnp.asarray(array)
        return parallel.place(array, targets[name])

    return parallel.from_named_leaves(params, {name: one(name) for name in leaves})


def as_torch(
    params: nnx.State, tensors: LazyTensors, *, overrides: Overrides | None = None
) -> LazyTensors:
    """Converts tensors with NNX's names and layouts to PyTorch's, lazily.

    Used to read weights that this project has written through the same path as released ones.

    Raises:
      ValueError: names or shapes differ from those of `params`.
    """
    leaves = parallel.named_leaves(params)
    require_match(
        {TorchTensor(name, tuple(range(leaf.ndim))): leaf.shape for name, leaf in leaves.items()},
        {name: entry.shape for name, entry in tensors.entries.items()},
    )
    entries = {}
    for name, leaf in leaves.items():
        tensor, entry = _torch_name(name, leaf, overrides), tensors.entries[name]
        entries[tensor.name] = LazyTensor(
            tuple(leaf.shape[axis] for axis in tensor.axes),
            entry.dtype,
            lambda read=entry.read, axes=tensor.axes: np.transpose(read(), axes),
        )
    return LazyTensors(entries)


def _torch_name(name: str, leaf: Any, overrides: Overrides | None) -> TorchTensor:
    return torch_tensor(name.split("."), leaf.ndim, overrides)
