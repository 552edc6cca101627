# SPDX-License-Identifier: Apache-2.0
"""Weights straight into their shardings and back out, one tensor at a time."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from mmdisco_jax import parallel
from mmdisco_jax.porting.lazy import Entry, LazyTensors, as_lazy
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
    """Parameters with the structure and shapes of `params` and the values of `tensors`.

    Each tensor is read, turned to NNX's layout, cast and put on its devices before the next one is
    read; a device gets its own part only.

    Args:
      params: state of the module, usually abstract (`nnx.eval_shape`).
      tensors: PyTorch name -> array in PyTorch's layout, best a `LazyTensors`.
      shardings: a tree like `params`, as `parallel.tree_shardings` gives; None: the default device.
      dtype: of floating parameters; None keeps those of `params`.
      overrides: dotted NNX path -> `TorchTensor`, for what the naming rule cannot know.

    Raises:
      ValueError: names missing, unexpected names or wrong shapes; before anything is read.
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


def unplace(params: nnx.State, *, overrides: Overrides | None = None) -> LazyTensors:
    """PyTorch name -> array in PyTorch's layout, the inverse of `place`; fetched when looked up."""

    def entry(leaf: Any) -> Entry:
        return Entry(tuple(leaf.shape), np.dtype(leaf.dtype), lambda: np.asarray(leaf))

    leaves = parallel.named_leaves(params)
    held = LazyTensors({name: entry(leaf) for name, leaf in leaves.items()})
    return as_torch(params, held, overrides=overrides)


def as_torch(
    params: nnx.State, tensors: LazyTensors, *, overrides: Overrides | None = None
) -> LazyTensors:
    """Tensors by NNX's names and in its layout as PyTorch's, for what was written from `params`.

    Raises:
      ValueError: names that are not exactly those of `params`, or other shapes.
    """
    leaves = parallel.named_leaves(params)
    require_match(
        {TorchTensor(name, tuple(range(leaf.ndim))): leaf.shape for name, leaf in leaves.items()},
        {name: entry.shape for name, entry in tensors.entries.items()},
    )
    entries = {}
    for name, leaf in leaves.items():
        tensor, entry = _torch_name(name, leaf, overrides), tensors.entries[name]
        entries[tensor.name] = Entry(
            tuple(leaf.shape[axis] for axis in tensor.axes),
            entry.dtype,
            lambda read=entry.read, axes=tensor.axes: np.transpose(read(), axes),
        )
    return LazyTensors(entries)


def _torch_name(name: str, leaf: Any, overrides: Overrides | None) -> TorchTensor:
    return torch_tensor(name.split("."), leaf.ndim, overrides)
