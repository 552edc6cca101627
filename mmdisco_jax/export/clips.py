# SPDX-License-Identifier: Apache-2.0
"""Sample shards: atomic npz files of generated clips, so that a killed run can resume."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from mmdisco_jax.io import replacing

Batch = dict[str, np.ndarray]


def shard_path(folder: Path, first: int) -> Path:
    """Path of the shard whose first sample is number `first`."""
    return folder / f"samples_{first:08d}.npz"


def write_shard(folder: Path, first: int, batch: Batch) -> None:
    """Writes one shard, whole or not at all; WriteError if the disk is full."""
    with replacing(shard_path(folder, first)) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **batch)


def read_shards(folder: Path, limit: int | None = None) -> Iterator[Batch]:
    """Yields shards in order of their first sample; FileNotFoundError if there are none."""
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
    """Joins all shards of a folder, at most the first `limit` samples of them."""
    shards = list(read_shards(folder, limit))
    return {k: np.concatenate([shard[k] for shard in shards]) for k in shards[0]}
