# SPDX-License-Identifier: Apache-2.0
"""Weight files of this project: one safetensors file with dotted names and metadata."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mmdisco_jax.checks import shape_mismatches
from mmdisco_jax.io import replacing
from mmdisco_jax.parallel import from_named_leaves, named_leaves
from mmdisco_jax.resources import RUN

_STORED = ("float32", "float16")


def save_weights(
    path: str | os.PathLike[str],
    params: Any,
    metadata: Mapping[str, str],
    *,
    dtype: str = "float32",
    write: bool = True,
) -> None:
    """Writes parameters to a file, as a whole or not at all.

    One tensor after the other is brought to the host, so that parameters which are cut over devices
    are never whole on any of them.

    Args:
      path: a `.safetensors` file; replaced if it exists.
      params: tree of arrays; the names in the file are those of `parallel.named_leaves`.
      metadata: texts by name, such as config (JSON), seed, step and commit.
      dtype: stored type of floating point numbers, "float32" or "float16".
      write: whether this process writes the file. Where parameters are cut over several processes,
        all of them call this function, and one writes.

    Raises:
      ValueError: unknown dtype or suffix, or a number beyond the range of float16.
      WriteError: the file cannot be written.
    """
    if dtype not in _STORED:
        raise ValueError(f"weights are stored as one of {list(_STORED)}, got {dtype!r}.")
    if Path(path).suffix != ".safetensors":
        raise ValueError(f"{path}: weights are written as .safetensors; change the suffix.")
    arrays = {}
    for name, leaf in named_leaves(params).items():
        array = _stored(name, leaf, dtype)
        if write:
            arrays[name] = array
    if write:
        with replacing(path, failures=(SafetensorError,)) as temporary:
            save_file(arrays, temporary, metadata=dict(metadata))


def _stored(name: str, leaf: Any, dtype: str) -> np.ndarray:
    array = _on_host(leaf)
    if np.issubdtype(array.dtype, np.floating):
        with np.errstate(over="ignore"):
            stored = array.astype(dtype)
        if not np.array_equal(np.isfinite(stored), np.isfinite(array)):
            raise ValueError(f"{name} has numbers beyond the range of {dtype}; use float32.")
        array = stored
    return np.ascontiguousarray(array).reshape(array.shape)


def _on_host(leaf: Any) -> np.ndarray:
    """A whole array in the host's memory, of which JAX keeps no copy."""
    if not isinstance(leaf, jax.Array):
        return np.asarray(leaf)
    if leaf.is_fully_replicated:
        return np.asarray(leaf.addressable_data(0))
    if not leaf.is_fully_addressable:  # gathered on the devices, this one array
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
    parts = [shard.data for shard in leaf.addressable_shards]
    return np.asarray(jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, parts))


def load_weights(path: str | os.PathLike[str], abstract: Any, shardings: Any = None) -> Any:
    """Loads parameters strictly: names and shapes must be exactly those of `abstract`.

    Args:
      path: a file that `save_weights` has written.
      abstract: tree of arrays or `jax.ShapeDtypeStruct`, such as `jax.eval_shape(init, key)`; it
        gives the structure and the dtypes of the result.
      shardings: tree like `abstract`, from `parallel.tree_shardings`: each device then reads its
        own parts from the file. None for the default device.

    Raises:
      FileNotFoundError: no such file.
      ValueError: unreadable content, or different names or shapes; the message lists them.
    """
    wanted = named_leaves(abstract)
    targets = named_leaves(shardings) if shardings is not None else {}
    with _opened(path) as file:
        slices = {name: file.get_slice(name) for name in list(file.keys())}
        shapes = {name: tuple(leaf.shape) for name, leaf in wanted.items()}
        found = {name: tuple(part.get_shape()) for name, part in slices.items()}
        if mismatches := shape_mismatches(shapes, found):
            raise ValueError(
                f"{path} does not fit the model; {mismatches}. Use the weights of this config, or "
                "the config that is in the file's metadata."
            )
        leaves = {}
        for name, leaf in wanted.items():
            if shardings is None:
                leaves[name] = jnp.asarray(file.get_tensor(name), leaf.dtype)
                continue

            def read(index: Any, name: str = name, leaf: Any = leaf) -> np.ndarray:
                part = slices[name][index] if index else file.get_tensor(name)
                return part.astype(leaf.dtype, copy=False)

            leaves[name] = jax.make_array_from_callback(leaf.shape, targets[name], read)
    return from_named_leaves(abstract, leaves)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Reads the metadata of a weight file; raises as `load_weights` does."""
    with _opened(path) as file:
        return dict(file.metadata() or {})


@contextlib.contextmanager
def _opened(path: Any) -> Iterator[Any]:
    if not Path(path).is_file():
        if str(path).startswith(RUN):
            raise FileNotFoundError(
                f"the weights {path} follow a run, and which one is not known here: name its "
                "folder as the argument runs=FOLDER of the config, or the file by config.weights."
            )
        raise FileNotFoundError(f"no weight file {path}; train first, or correct the path.")
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a whole safetensors file ({error}); copy or train it again."
        ) from error
