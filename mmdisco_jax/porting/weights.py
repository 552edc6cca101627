# SPDX-License-Identifier: Apache-2.0
"""Weight files of this project: one safetensors file with dotted names and metadata."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mmdisco_jax.checks import shape_mismatches
from mmdisco_jax.io import replacing
from mmdisco_jax.parallel import from_named_leaves, named_leaves

_STORED = ("float32", "float16")


def save_weights(
    path: str | os.PathLike[str],
    params: Any,
    metadata: Mapping[str, str],
    *,
    dtype: str = "float32",
) -> None:
    """Writes parameters to a file, as a whole or not at all.

    Args:
      path: a `.safetensors` file; replaced if it exists.
      params: tree of arrays; the names in the file are those of `parallel.named_leaves`.
      metadata: texts by name, such as config (JSON), seed, step and commit.
      dtype: stored type of floating point numbers, "float32" or "float16".

    Raises:
      ValueError: unknown dtype or suffix, or a number beyond the range of float16.
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
    """Loads parameters strictly: names and shapes must be exactly those of `abstract`.

    Args:
      path: a file that `save_weights` has written.
      abstract: tree of arrays or `jax.ShapeDtypeStruct`, such as `jax.eval_shape(init, key)`; it
        gives the structure and the dtypes of the result.

    Raises:
      FileNotFoundError: no such file.
      ValueError: unreadable content, or different names or shapes; the message lists them.
    """
    arrays, _ = _read(path)
    wanted = named_leaves(abstract)
    shapes = {name: tuple(leaf.shape) for name, leaf in wanted.items()}
    if mismatches := shape_mismatches(shapes, {name: x.shape for name, x in arrays.items()}):
        raise ValueError(
            f"{path} does not fit the model; {mismatches}. Use the weights of this config, or the "
            "config that is in the file's metadata."
        )
    leaves = {name: jnp.asarray(arrays[name], leaf.dtype) for name, leaf in wanted.items()}
    return from_named_leaves(abstract, leaves)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Reads the metadata of a weight file; raises as `load_weights` does."""
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
