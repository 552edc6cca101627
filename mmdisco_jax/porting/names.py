# SPDX-License-Identifier: Apache-2.0
"""Naming rule between NNX parameters and tensors of a PyTorch state dict.

The networks use the attribute names of the official code, so one rule covers nearly all parameters:
join the path by dots, rename the leaf, and permute the axes by leaf name and rank. Exceptions, such
as transposed convolutions and renamed attributes, are listed beside each model as `overrides`.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}

# NNX [*window, i, o] -> PyTorch [o, i, *window]; anything else keeps its layout.
AXES = {
    ("kernel", 2): (1, 0),
    ("kernel", 3): (2, 1, 0),
    ("kernel", 4): (3, 2, 0, 1),
    ("kernel", 5): (4, 3, 0, 1, 2),
}


class TorchTensor(NamedTuple):
    """Name and layout of a tensor in the state dict: `nnx_array.transpose(axes)` is its value."""

    name: str
    axes: tuple[int, ...]

    @property
    def inverse(self) -> tuple[int, ...]:
        """Permutation of PyTorch's axes that gives NNX's layout."""
        return tuple(self.axes.index(axis) for axis in range(len(self.axes)))


def dotted(path: Sequence[object]) -> str:
    """Joins an NNX path by dots, as in "layers.0.kernel", the keys of `overrides`."""
    return ".".join(map(str, path))


# Dotted NNX path -> a `TorchTensor`, or a plain tuple of its fields, which models can write without
# importing this package.
Overrides = Mapping[str, tuple[str, tuple[int, ...]]]


def torch_tensor(
    path: Sequence[object], ndim: int, overrides: Overrides | None = None
) -> TorchTensor:
    """Returns the PyTorch name and layout of the parameter at `path` with `ndim` axes."""
    key = dotted(path)
    if overrides and key in overrides:
        return TorchTensor(*overrides[key])
    leaf = str(path[-1])
    name = dotted([*path[:-1], LEAVES.get(leaf, leaf)])
    return TorchTensor(name, AXES.get((leaf, ndim), tuple(range(ndim))))
