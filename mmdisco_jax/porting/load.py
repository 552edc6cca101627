# SPDX-License-Identifier: Apache-2.0
"""Strict loading of PyTorch tensors into NNX parameters, and the way back.

Every tensor must be used and every parameter filled; otherwise loading raises.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmdisco_jax.checks import listed, shape_mismatches
from mmdisco_jax.porting.names import Overrides, TorchTensor, torch_tensor

Tensors = Mapping[str, np.ndarray]
M = TypeVar("M", bound=nnx.Module)


def from_torch(params: nnx.State, tensors: Tensors, *, overrides: Overrides | None = None):
    """Fills parameters with the values of PyTorch tensors.

    Args:
      params: state of the module, concrete or abstract (`nnx.eval_shape`); it gives the structure,
        shapes and dtypes of the result.
      tensors: PyTorch name -> array in PyTorch's layout.
      overrides: dotted NNX path -> name and axes in the file, where the naming rule fails.

    Raises:
      ValueError: missing or unexpected names, or wrong shapes; the message lists them.
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
    """Converts parameters to PyTorch names and layouts; the exact inverse of `from_torch`."""
    tensors = {}
    for path, leaf in nnx.to_flat_state(params):
        name, axes = torch_tensor(path, leaf.ndim, overrides)
        tensors[name] = np.transpose(np.asarray(leaf[...]), axes)
    return tensors


def load_module(
    make: Callable[[], M], tensors: Tensors, *, overrides: Overrides | None = None
) -> M:
    """Builds the module `make()` with the values of `tensors`, without drawing initial values."""
    graphdef, params = nnx.split(nnx.eval_shape(make))
    return nnx.merge(graphdef, from_torch(params, tensors, overrides=overrides))


def strip_prefix(tensors: Tensors, prefix: str) -> dict[str, np.ndarray]:
    """Removes `prefix`, such as "module.", from every name.

    Raises:
      ValueError: a name lacks the prefix.
    """
    odd = [name for name in tensors if not name.startswith(prefix)]
    if odd:
        raise ValueError(f"names without the prefix {prefix!r}: {listed(odd)}")
    return {name.removeprefix(prefix): value for name, value in tensors.items()}


def require_match(
    wanted: Mapping[TorchTensor, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> None:
    """Raises ValueError unless the names and shapes of tensors are exactly the wanted ones.

    Args:
      wanted: tensor -> shape of the parameter in NNX's layout.
      found: PyTorch name -> shape in PyTorch's layout.
    """
    shapes = {tensor.name: tuple(shape[i] for i in tensor.axes) for tensor, shape in wanted.items()}
    if mismatches := shape_mismatches(shapes, found):
        raise ValueError(
            f"the tensors do not fit the model (is it the right file and preset?); {mismatches}"
        )
