# SPDX-License-Identifier: Apache-2.0
"""Writing of model folders in the layout of diffusers and transformers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from mmdisco_jax.io import replacing_folder
from mmdisco_jax.porting.folders import CONFIG, checked_component
from mmdisco_jax.porting.lazy import LazyTensors, as_lazy

MAX_SHARD_BYTES = 4 * 2**30
# Config and tensors of a component.
Model = tuple[Mapping[str, Any], Mapping[str, np.ndarray]]


def save_folder(
    root: str | Path,
    components: Mapping[str, Model],
    *,
    files: Mapping[str, str | bytes] | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes models into a new folder, one subfolder each, as a whole or not at all.

    Tensors are read one shard at a time, while they are written.

    Args:
      root: the folder; it must not exist, or be empty.
      components: subfolder -> (content of config.json, tensors in PyTorch's names and layouts); ""
        is the folder itself. A config with `_class_name` belongs to diffusers, which expects
        another name for the weight file than transformers.
      files: relative path -> content of further files, such as model_index.json.
      max_shard_bytes: larger weights are divided into several files and an index.

    Raises:
      FileExistsError: `root` exists and is not an empty folder.
      ValueError: a path leads out of the folder, or the shard size is below 1.
    """
    if max_shard_bytes < 1:
        raise ValueError(f"max_shard_bytes={max_shard_bytes} must be at least 1.")
    texts = {_checked_path(name): content for name, content in (files or {}).items()}
    models = {checked_component(name): model for name, model in components.items()}
    with replacing_folder(root) as partial:
        for name, (config, tensors) in models.items():
            folder = partial / name
            folder.mkdir(exist_ok=True)
            _write_json(folder / CONFIG, config)
            stem = "diffusion_pytorch_model" if "_class_name" in config else "model"
            _write_weights(folder, stem, as_lazy(tensors), max_shard_bytes)
        for name, content in texts.items():
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)


def _write_weights(folder: Path, stem: str, tensors: LazyTensors, max_bytes: int) -> None:
    shards = _shards(tensors, max_bytes)
    if len(shards) == 1:
        _write_shard(folder / f"{stem}.safetensors", tensors, shards[0])
        return
    weight_map = {}
    for number, names in enumerate(shards, start=1):
        file = f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_shard(folder / file, tensors, names)
        weight_map |= dict.fromkeys(names, file)
    total = sum(_num_bytes(tensors, name) for name in tensors)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    _write_json(folder / f"{stem}.safetensors.index.json", index)


def _shards(tensors: LazyTensors, max_bytes: int) -> list[list[str]]:
    """Divides the names, in order, into shards of at most `max_bytes`; no tensor is divided."""
    shards: list[list[str]] = [[]]
    size = 0
    for name in tensors:
        num_bytes = _num_bytes(tensors, name)
        if shards[-1] and size + num_bytes > max_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += num_bytes
    return shards


def _num_bytes(tensors: LazyTensors, name: str) -> int:
    entry = tensors.entries[name]
    return int(np.prod(entry.shape, dtype=np.int64)) * entry.dtype.itemsize


def _write_shard(path: Path, tensors: LazyTensors, names: list[str]) -> None:
    arrays = {name: np.asarray(tensors[name], order="C") for name in names}
    save_file(arrays, path, {"format": "pt"})  # transformers refuses files without this note


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(dict(content), indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _checked_path(name: str) -> str:
    for part in name.split("/"):
        if not checked_component(part):
            raise ValueError(f"a file is called {name!r}; it must be a path inside the folder.")
    return name
