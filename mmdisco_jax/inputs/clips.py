# SPDX-License-Identifier: Apache-2.0
"""Shards of generated samples: npz files that are whole or absent, so that a killed run goes on."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

Batch = dict[str, np.ndarray]


def shard_path(folder: Path, first: int) -> Path:
    """The shard whose first sample is number `first`."""
    return folder / f"samples_{first:08d}.npz"


def write_shard(folder: Path, first: int, batch: Batch) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = shard_path(folder, first)
    partial = path.with_suffix(".partial")
    try:
        with open(partial, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **batch)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(f"{path} could not be written: {error}. Free space and run again.") from error


def read_shards(folder: Path, limit: int | None = None) -> Iterator[Batch]:
    """Shards in order of their first sample; FileNotFoundError if there are none."""
    paths = sorted(folder.glob("samples_*.npz"))
    if not paths:
        raise FileNotFoundError(f"no samples in {folder}: run the sample command first.")
    seen = 0
    for path in paths:
        try:
            with np.load(path) as data:
                batch = dict(data)
        except (ValueError, EOFError, OSError, BadZipFile, zlib.error) as error:
            raise ValueError(f"{path} is damaged ({error}): delete it and sample again.") from error
        if limit is not None:
            batch = {k: v[: limit - seen] for k, v in batch.items()}
        seen += len(next(iter(batch.values())))
        yield batch
        if limit is not None and seen >= limit:
            return


def read_all(folder: Path, limit: int | None = None) -> Batch:
    """All shards of a folder, joined; at most the first `limit` samples."""
    shards = list(read_shards(folder, limit))
    return {k: np.concatenate([shard[k] for shard in shards]) for k in shards[0]}
