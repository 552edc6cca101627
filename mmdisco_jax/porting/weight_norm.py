# SPDX-License-Identifier: Apache-2.0
"""Folding of weight normalisation (Salimans and Kingma 2016) into plain weights."""

import re
from collections.abc import Mapping

import numpy as np

# Names of magnitude and direction in PyTorch's old and new implementations.
_MAGNITUDE = re.compile(r"(?P<stem>.*)(?P<kind>weight_g|parametrizations\.weight\.original0)$")
_DIRECTION = {
    "weight_g": "weight_v",
    "parametrizations.weight.original0": "parametrizations.weight.original1",
}


def folded(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Replaces each pair (g, v) by `weight` = g v / ||v||; other tensors stay.

    The norm is over all axes but the first (PyTorch's default, dim=0), also for transposed
    convolutions. It is computed in float64; the weight has the dtype of v.

    Raises:
      ValueError: half of a pair is missing, a magnitude has an unexpected shape, or `weight` exists
        already.
    """
    plain, used = {}, set()
    for name, g in tensors.items():
        found = _MAGNITUDE.match(name)
        if not found:
            continue
        direction = found["stem"] + _DIRECTION[found["kind"]]
        target = found["stem"] + "weight"
        if direction not in tensors or target in tensors:
            raise ValueError(
                f"{name} is a weight norm's magnitude: the file must hold {direction} beside it, "
                f"and no {target}. Get the file again."
            )
        plain[target] = _product(name, g, tensors[direction])
        used |= {name, direction}
    rest = {name: value for name, value in tensors.items() if name not in used}
    halves = [name for name in rest if name.endswith(tuple(_DIRECTION.values()))]
    if halves:
        raise ValueError(f"{halves} are directions of a weight norm without their magnitudes.")
    return rest | plain


def _product(name: str, g: np.ndarray, v: np.ndarray) -> np.ndarray:
    shape = (len(v), *[1] * (v.ndim - 1))
    if g.shape != shape:
        raise ValueError(
            f"{name} is {g.shape}, but must be {shape}: one magnitude for each entry of the first "
            "axis (dim=0); other weight norms are not ported."
        )
    wide = v.astype(np.float64)
    norm = np.sqrt(np.square(wide).sum(axis=tuple(range(1, v.ndim)), keepdims=True))
    return (g * wide / norm).astype(v.dtype)
