# SPDX-License-Identifier: Apache-2.0
"""Trained weights as one safetensors file: dotted parameter names, and where they came from."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mmdisco_jax.io import replacing
from mmdisco_jax.parallel import from_named_leaves, named_leaves

_STORED = ("float32", "float16")
_SHOWN = 8  # names an error lists of each sort


def save_weights(
    path: str | os.PathLike[str],
    params: Any,
    metadata: Mapping[str, str],
    *,
    dtype: str = "float32",
) -> None:
    """Writes the parameters whole or not at all.

    Args:
      path: a `.safetensors` file; replaced if it exists.
      params: tree of arrays; the names in the file are `parallel.named_leaves`.
      metadata: text by name: config (json), seed, step, commit, ...
      dtype: how floating point numbers are stored, "float32" or "float16".

    Raises:
      ValueError: another dtype or suffix, or a number that float16 cannot hold.
      WriteError: the file cannot be written.
    """
    if dtype not in _STORED:
        raise ValueError(f"weights are stored as one of {list(_STORED)}, got {dtype!r}.")
    if Path(path).suffix != ".safetensors":
        raise ValueError(f"{path}: weights are written as .safetensors; change the suffix.")
    arrays = {}
    for name, leaf in named_leaves(jax.device_get(params)).items():
        array = np.asarray(leaf)
        if np.issubdtype(array.dtype, np.floating):
            with np.errstate(over="ignore"):
                stored = array.astype(dtype)
            if not np.array_equal(np.isfinite(stored), np.isfinite(array)):
                raise ValueError(f"{name} has numbers beyond the range of {dtype}; use float32.")
            array = stored
        arrays[name] = np.ascontiguousarray(array).reshape(array.shape)
    with replacing(path, failures=(SafetensorError,)) as temporary:
        save_file(arrays, temporary, metadata=dict(metadata))


def load_weights(path: str | os.PathLike[str], abstract: Any) -> Any:
    """Parameters built like `abstract`, with its dtypes: every name of both sides must match.

    Args:
      path: a file of `save_weights`.
      abstract: tree of arrays or `jax.ShapeDtypeStruct`, as of `jax.eval_shape(init, key)`.

    Raises:
      FileNotFoundError: no such file.
      ValueError: unreadable content, or names or shapes that differ; all are named.
    """
    arrays, _ = _read(path)
    wanted = named_leaves(abstract)
    shapes = {name: tuple(leaf.shape) for name, leaf in wanted.items()}
    complaints = {
        "missing": [name for name in shapes if name not in arrays],
        "unexpected": [name for name in arrays if name not in shapes],
        "wrong shape": [
            f"{name} is {arrays[name].shape}, the model has {shape}"
            for name, shape in shapes.items()
            if name in arrays and arrays[name].shape != shape
        ],
    }
    found = [f"{sort}: {_listed(names)}" for sort, names in complaints.items() if names]
    if found:
        raise ValueError(
            f"{path} does not fit the model; {'; '.join(found)}. Use the weights of this config, "
            "or the config that is in the file's metadata."
        )
    leaves = {name: jnp.asarray(arrays[name], leaf.dtype) for name, leaf in wanted.items()}
    return from_named_leaves(abstract, leaves)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """What `save_weights` wrote beside the numbers; errors as `load_weights`."""
    return _read(path, values=False)[1]


def _read(path: Any, *, values: bool = True) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"no weight file {path}; train first, or correct the path.")
    try:
        with safe_open(path, framework="numpy") as file:
            names = file.keys() if values else []
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a whole safetensors file ({error}); copy or train it again."
        ) from error


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(sorted(names)[:_SHOWN]) + more
