# SPDX-License-Identifier: Apache-2.0
"""Arrays that are dear to make (latents, embeddings, generated fakes), kept beside the data.

A cache is a folder of array_record shards, each record the arrays of one example as safetensors,
and a note that says what made them. Shards are whole or absent, so a killed run goes on; a cache
that something else made is refused by name.
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
    """A cache was made by something else than what is asked for; names it and the difference."""


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
    """Writes examples 0..count-1; goes on where an earlier run stopped.

    Args:
      folder: of the cache; made if missing.
      made_by: what decides the arrays (weights' digests, settings), ready for JSON.
      count: number of examples; a cache may grow.
      make: (first, last) -> arrays [n ...] of the examples first..last-1, or more; what is more
        than asked for is dropped.
      shard_size: examples in a shard.
      process_index, process_count: which of the processes that share the work this is.
      desc: of the progress bar.

    Raises:
      StaleCacheError: the folder holds the work of something else.
    """
    folder = Path(folder)
    wanted = _plain(made_by) | {"shard_size": shard_size}
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
    """The examples of a whole cache; `source[i]` is a dict of arrays.

    Attributes: `directory`, `made_by`.
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
        return self.__dict__ | {"_readers": {}}  # readers do not travel to worker processes


def open_cache(
    folder: str | os.PathLike[str], made_by: Mapping[str, Any] | None = None
) -> CacheSource:
    """A whole cache, made by what `made_by` says (only the keys that it has are compared).

    Raises:
      FileNotFoundError: no cache there, or an unfinished one.
      StaleCacheError: something else made it.
    """
    folder = Path(folder)
    if not (folder / _NOTE).exists():
        raise FileNotFoundError(f"no cache in {folder}: run prepare, or give another folder.")
    note = json.loads((folder / _NOTE).read_text())
    _require_same(folder, _plain(made_by or {}), note["made_by"])
    for first in range(0, note["count"], note["made_by"]["shard_size"]):
        if not _shard(folder, first).exists():
            raise FileNotFoundError(
                f"the cache in {folder} is unfinished ({_shard(folder, first).name} is missing): "
                "run prepare again, which goes on where it stopped."
            )
    return CacheSource(folder, note)


def read_cache(source: CacheSource) -> Arrays:
    """All examples, stacked."""
    rows = [source[i] for i in range(len(source))]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _plain(made_by: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(made_by))  # tuples become lists, as in the note


def _require_same(folder: Path, wanted: dict[str, Any], held: dict[str, Any]) -> None:
    for key, value in wanted.items():
        if held.get(key) != value:
            raise StaleCacheError(
                f"the cache in {folder} is stale: it was made with {key} = "
                f"{_short(held.get(key))}, not {_short(value)}. Delete it, or use another folder."
            )


def _short(value: Any) -> str:
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
