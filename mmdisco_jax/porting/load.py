# SPDX-License-Identifier: Apache-2.0
"""Strict exchange of parameters: every tensor is used, every parameter is filled, or it raises."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmdisco_jax.porting.names import Overrides, TorchTensor, torch_tensor

Tensors = Mapping[str, np.ndarray]
M = TypeVar("M", bound=nnx.Module)
_SHOWN = 12  # keys an error lists of each sort


def from_torch(params: nnx.State, tensors: Tensors, *, overrides: Overrides | None = None):
    """Parameters with the structure, shapes and dtypes of `params`, and the values of `tensors`.

    Args:
      params: state of the module, concrete or abstract (`nnx.eval_shape`).
      tensors: PyTorch name -> array in PyTorch's layout.
      overrides: dotted NNX path -> name and axes in the file, for what the naming rule cannot know.

    Raises:
      ValueError: names missing, unexpected names or wrong shapes; all are named.
    """
    flat = nnx.to_flat_state(params)
    wanted = {path: torch_tensor(path, leaf.ndim, overrides) for path, leaf in flat}
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    require_match({wanted[path]: leaf.shape for path, leaf in flat}, shapes)

    def filled(path, leaf):
        array = np.transpose(tensors[wanted[path].name], wanted[path].inverse)
        return leaf.replace(jnp.asarray(array, leaf.dtype))

    return nnx.from_flat_state([(path, filled(path, leaf)) for path, leaf in flat])


def to_torch(params: nnx.State, *, overrides: Overrides | None = None) -> dict[str, np.ndarray]:
    """PyTorch name -> array in PyTorch's layout, the inverse of `from_torch`, bit for bit."""
    tensors = {}
    for path, leaf in nnx.to_flat_state(params):
        name, axes = torch_tensor(path, leaf.ndim, overrides)
        tensors[name] = np.transpose(np.asarray(leaf[...]), axes)
    return tensors


def load_module(
    make: Callable[[], M], tensors: Tensors, *, overrides: Overrides | None = None
) -> M:
    """The module `make()` builds, with the values of `tensors` and without drawing initial ones."""
    graphdef, params = nnx.split(nnx.eval_shape(make))
    return nnx.merge(graphdef, from_torch(params, tensors, overrides=overrides))


def strip_prefix(tensors: Tensors, prefix: str) -> dict[str, np.ndarray]:
    """Tensors with `prefix` (such as "module.") removed from every name.

    Raises:
      ValueError: a name lacks the prefix.
    """
    odd = [name for name in tensors if not name.startswith(prefix)]
    if odd:
        raise ValueError(f"names without the prefix {prefix!r}: {_listed(odd)}")
    return {name.removeprefix(prefix): value for name, value in tensors.items()}


def require_match(
    wanted: Mapping[TorchTensor, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise ValueError unless the tensors, name -> shape, are those that the model wants.

    wanted: tensor -> shape of the parameter, in NNX's layout.
    """
    shapes = {tensor.name: tuple(shape[i] for i in tensor.axes) for tensor, shape in wanted.items()}
    wrong = [
        f"{name} is {tuple(found[name])}, the model has {shape}"
        for name, shape in shapes.items()
        if name in found and tuple(found[name]) != shape
    ]
    complaints = {
        "missing": [name for name in shapes if name not in found],
        "unexpected": [name for name in found if name not in shapes],
        "wrong shape": wrong,
    }
    sorts = [f"{sort}: {_listed(names)}" for sort, names in complaints.items() if names]
    if sorts:
        raise ValueError(
            "the tensors do not fit the model (is it the right file and preset?); "
            + "; ".join(sorts)
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(sorted(names)[:_SHOWN]) + more
