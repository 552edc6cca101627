# SPDX-License-Identifier: Apache-2.0
"""How an NNX parameter is called and laid out in a PyTorch state dict.

The networks carry the official attribute names, so a rule suffices: the path joined by dots, the
leaf renamed, the axes permuted by leaf and rank. What the rule cannot know (a transposed
convolution, a renamed attribute) is listed beside the model as `overrides`.
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
    """Name in the state dict, and the NNX axes in PyTorch's order: `nnx_array.transpose(axes)`."""

    name: str
    axes: tuple[int, ...]

    @property
    def inverse(self) -> tuple[int, ...]:
        """The PyTorch axes in NNX order."""
        return tuple(self.axes.index(axis) for axis in range(len(self.axes)))


def dotted(path: Sequence[object]) -> str:
    """An NNX path as `OVERRIDES` tables write it: "layers.0.kernel"."""
    return ".".join(map(str, path))


# Dotted NNX path -> a `TorchTensor`, or its fields as models write them that know nothing of it.
Overrides = Mapping[str, tuple[str, tuple[int, ...]]]


def torch_tensor(
    path: Sequence[object], ndim: int, overrides: Overrides | None = None
) -> TorchTensor:
    """The PyTorch form of the parameter at `path`; `overrides` is keyed by the dotted NNX path."""
    key = dotted(path)
    if overrides and key in overrides:
        return TorchTensor(*overrides[key])
    leaf = str(path[-1])
    name = dotted([*path[:-1], LEAVES.get(leaf, leaf)])
    return TorchTensor(name, AXES.get((leaf, ndim), tuple(range(ndim))))
