# SPDX-License-Identifier: Apache-2.0
"""Disk cache of arrays that are expensive to compute: latents, embeddings, generated fakes.

A cache is a folder of array_record shards and a JSON note. Each record holds the arrays of one
example as safetensors. The note says what made them, and a cache that something else made is
refused. Shards are whole or absent, so an interrupted run can resume.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from safetensors import SafetensorError
from safetensors.numpy import load, save
from tqdm import tqdm

from mmdisco_jax.io import num_records, rename_durably

_NOTE = "made_by.json"
Arrays = dict[str, np.ndarray]


class StaleCacheError(ValueError):
    """Raised when a cache was made by something else than requested; names the difference."""


def write_cache(
    folder: str | os.PathLike[str],
    made_by: Mapping[str, Any],
    count: int,
    make: Callable[[int, int], Arrays],
    *,
    shard_size: int,
    process_index: int = 0,
    process_count: int = 1,
    desc: str = "cache",
) -> None:
    """Writes examples 0..count-1 to a cache; shards of an earlier run are kept.

    Args:
      folder: the cache's folder; made if missing.
      made_by: everything that decides the arrays (digests of weights, settings), ready for JSON.
      count: number of examples; may exceed that of an earlier run.
      make: (first, last) -> arrays [n ...] of the examples first..last-1. Rows beyond them, such as
        padding of a batch, are dropped.
      shard_size: examples in a shard.
      process_index, process_count: this process, and the number of processes that share the work.
      desc: label of the progress bar.

    Raises:
      StaleCacheError: the folder holds a cache that was made by something else.
    """
    folder = Path(folder)
    wanted = _as_json(made_by) | {"shard_size": shard_size}
    if (folder / _NOTE).exists():
        _require_same(folder, wanted, json.loads((folder / _NOTE).read_text())["made_by"])
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{_NOTE}.{os.getpid()}.part"
    temporary.write_text(json.dumps({"made_by": wanted, "count": count}, indent=1))
    rename_durably(temporary, folder / _NOTE)
    starts = range(process_index * shard_size, count, process_count * shard_size)
    for first in tqdm(starts, unit="shard", desc=desc):
        path, last = _shard(folder, first), min(first + shard_size, count)
        if num_records(path) >= last - first:
            continue
        _write_shard(path, make(first, last), last - first)


class CacheSource:
    """Random-access source of the examples of a complete cache; `source[i]` is a dict of arrays.

    Attributes:
      directory: the cache's folder.
      made_by: the note on what made the arrays.
      metadata: always empty; other sources describe their clips in it.
    """

    def __init__(self, folder: Path, note: dict[str, Any]):
        self.directory, self.made_by = folder, note["made_by"]
        self.metadata: dict[str, Any] = {}
        self._count, self._size = note["count"], self.made_by["shard_size"]
        self._readers: dict[int, ArrayRecordReader] = {}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Arrays:
        if not 0 <= index < self._count:
            raise IndexError(f"example {index} of {self._count} in {self.directory}")
        first = index // self._size * self._size
        try:
            if first not in self._readers:
                self._readers[first] = ArrayRecordReader(str(_shard(self.directory, first)))
            return load(self._readers[first].read([index - first])[0])
        except (RuntimeError, SafetensorError, IndexError) as error:
            raise ValueError(
                f"{_shard(self.directory, first)} is damaged ({error}): delete it and run prepare "
                "again."
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_readers": {}}  # readers cannot be sent to worker processes


def open_cache(
    folder: str | os.PathLike[str], made_by: Mapping[str, Any] | None = None
) -> CacheSource:
    """Opens a complete cache.

    Args:
      made_by: what must have made it; only the keys given here are compared.

    Raises:
      FileNotFoundError: there is no cache, or an unfinished one.
      StaleCacheError: something else made it.
    """
    folder = Path(folder)
    if not (folder / _NOTE).exists():
        raise FileNotFoundError(f"no cache in {folder}: run prepare, or pass another folder.")
    note = json.loads((folder / _NOTE).read_text())
    _require_same(folder, _as_json(made_by or {}), note["made_by"])
    for first in range(0, note["count"], note["made_by"]["shard_size"]):
        if not _shard(folder, first).exists():
            raise FileNotFoundError(
                f"the cache in {folder} is unfinished ({_shard(folder, first).name} is missing): "
                "run prepare again to complete it."
            )
    return CacheSource(folder, note)


def read_cache(source: CacheSource) -> Arrays:
    """Reads all examples into memory, stacked to arrays [n ...]."""
    rows = [source[i] for i in range(len(source))]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _as_json(made_by: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(made_by))  # tuples become lists, as in the note


def _require_same(folder: Path, wanted: dict[str, Any], found: dict[str, Any]) -> None:
    for key, value in wanted.items():
        if found.get(key) != value:
            raise StaleCacheError(
                f"the cache in {folder} is stale: it was made with {key} = "
                f"{_abbreviated(found.get(key))}, not {_abbreviated(value)}. "
                "Delete it, or use another folder."
            )


def _abbreviated(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else text[:200] + "..."


def _shard(folder: Path, first: int) -> Path:
    return folder / f"examples_{first:08d}.array_record"


def _write_shard(path: Path, arrays: Arrays, count: int) -> None:
    for left in path.parent.glob(f"{path.name}.*.part"):  # by a run that was killed
        left.unlink()
    temporary = f"{path}.{os.getpid()}.part"
    writer = ArrayRecordWriter(temporary, "group_size:1")
    try:
        for i in range(count):
            writer.write(save({name: np.asarray(x[i], order="C") for name, x in arrays.items()}))
    finally:
        writer.close()
    rename_durably(temporary, path)
