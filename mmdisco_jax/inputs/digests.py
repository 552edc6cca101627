# SPDX-License-Identifier: Apache-2.0
"""SHA-256 of the records of a prepared dataset, split by split.

Hashing reads every byte, about a second per gigabyte, so the hash of a shard is kept in the user's
cache folder and used while the file's size, time and inode are what they were.
"""

import hashlib
import json
import os
import re
import time
from pathlib import Path
from typing import Any

from mmdisco_jax.io import WriteError, digest, write_bytes
from mmdisco_jax.progress import Progress
from mmdisco_jax.resources import cache_dir

_SHARD = re.compile(r".*-(?P<split>\w+)\.array_record-\d+-of-\d+")
# What the records mean, of the properties that TFDS keeps beside them.
_RATES = ("fps", "sample_rate_hz", "clip_seconds")
# A file that was written just before it was hashed may change again without another time.
_SETTLED_SECONDS = 3


def record_digests(directory: str | os.PathLike[str]) -> dict[str, str]:
    """SHA-256 of each split of a prepared dataset: of its shards, features and rates.

    Neither the folder's name and place nor its other files are part of it: datasets with equal
    records have equal digests.

    Args:
      directory: the folder of one prepared dataset, with `features.json` and array_record shards.

    Raises:
      FileNotFoundError: the folder is none of a prepared dataset.
    """
    folder = Path(directory).absolute()
    shards: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if found := _SHARD.fullmatch(path.name):
            shards.setdefault(found["split"], []).append(path)
    known = _Known(folder)
    total = sum(map(len, shards.values()))
    with Progress(total=total, what="hashing data", unit="shard", leave=False) as bar:
        hashes: dict[str, list[str]] = {split: [] for split in shards}
        for split, paths in shards.items():
            for path in paths:
                hashes[split].append(known.digest(path))
                bar.update()
    known.keep()
    shared = [digest(folder / "features.json"), _rates(folder)]
    return {
        split: hashlib.sha256(json.dumps([*shared, found]).encode()).hexdigest()
        for split, found in hashes.items()
    }


def _rates(folder: Path) -> dict[str, Any]:
    path = folder / "metadata.json"
    metadata = json.loads(path.read_text()) if path.is_file() else {}
    return {name: metadata[name] for name in _RATES if name in metadata}


class _Known:
    """Hashes of a folder's files from earlier runs, in the user's cache folder."""

    def __init__(self, folder: Path):
        name = hashlib.sha256(str(folder).encode()).hexdigest()[:24]
        self._path = cache_dir() / "digests" / f"{name}.json"
        try:
            self._before = json.loads(self._path.read_text())
        except (OSError, ValueError):
            self._before = {}
        self._now: dict[str, Any] = {}

    def digest(self, path: Path) -> str:
        stat = path.stat()
        state = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        *before, known = self._before.get(path.name) or [None]
        found = known if before == state else digest(path)
        if time.time() - stat.st_mtime > _SETTLED_SECONDS:
            self._now[path.name] = [*state, found]
        return found

    def keep(self) -> None:
        if self._now == self._before:
            return
        try:
            write_bytes(self._path, json.dumps(self._now).encode())
        except WriteError:
            return  # then the next run reads the files again
