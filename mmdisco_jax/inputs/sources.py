# SPDX-License-Identifier: Apache-2.0
"""Random-access sources of the records of prepared datasets, without TensorFlow.

A prepared dataset is a folder that TFDS wrote: `dataset_info.json`, `features.json` and
array_record shards. The folder is enough to read it; the builder that wrote it is not needed.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from google.protobuf.json_format import ParseError

from mmdisco_jax.datasets import DATASETS

Example = dict[str, Any]
_INFO_FILE = "dataset_info.json"


class DamagedDatasetError(RuntimeError):
    """Raised when a prepared dataset cannot be read; names the folder, reason and remedy."""


class RecordSource:
    """One split of a prepared dataset; `source[i]` is record i: arrays, numbers and strings.

    It implements grain's `RandomAccessDataSource`.

    Attributes:
      directory: the folder of the prepared dataset.
      split: name of the split.
      metadata: properties that all clips share, such as `fps`, `sample_rate_hz`, `clip_seconds`.
    """

    def __init__(self, directory: Path, split: str):
        """Opens a split of a prepared dataset; raises as `open_source` does."""
        self.directory, self.split = directory, split
        try:
            builder: Any = tfds.builder_from_directory(directory)
        except (ParseError, json.JSONDecodeError, KeyError) as error:
            raise _damaged(directory, error) from error
        if split not in builder.info.splits:
            raise ValueError(
                f"split {split!r} is not in {directory}; it has "
                f"{sorted(builder.info.splits)}. Ask for one of these."
            )
        self.metadata: Mapping[str, Any] = dict(builder.info.metadata or {})
        self._records = builder.as_data_source(split)
        if len(self._records):  # so that a truncated or missing shard shows now, not hours later
            for i in (0, len(self._records) - 1):
                self[i]

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        try:
            record = self._records[index]
        except RuntimeError as error:  # array_record raises it for any damage, by checksums
            raise _damaged(self.directory, error, record=f"{self.split}[{index}]") from error
        return {k: v.decode() if isinstance(v, bytes) else v for k, v in record.items()}

    def __repr__(self) -> str:
        return f"RecordSource({str(self.directory)!r}, {self.split!r}, {len(self)} records)"


class InMemorySource:
    """In-memory copy of a source, for splits that fit into memory."""

    def __init__(self, source: RecordSource):
        """Reads every record of `source`."""
        self.directory, self.split, self.metadata = source.directory, source.split, source.metadata
        self._examples = [source[i] for i in range(len(source))]

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        return dict(self._examples[index])


def open_source(
    name_or_dir: str | os.PathLike[str],
    split: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    in_memory: bool = False,
) -> RecordSource | InMemorySource:
    """Opens one split of a prepared dataset.

    Args:
      name_or_dir: the name of a dataset (registered, or "package.module:attribute"), which needs
        `data_dir`; or a folder that holds one prepared dataset, directly or at any depth.
      split: name of a split, such as "train" or "test".
      data_dir: the folder that `prepare` wrote to; needed with a name.
      in_memory: read all records now and serve them from memory.

    Returns:
      A random-access source of `{"video": uint8 [f h w 3], "audio": int16 [samples], ...}`.

    Raises:
      ValueError: unknown name or split, or more than one prepared dataset.
      FileNotFoundError: there is no prepared dataset.
      DamagedDatasetError: the records are unreadable.
    """
    source = RecordSource(find_prepared(name_or_dir, data_dir=data_dir), split)
    return InMemorySource(source) if in_memory else source


def find_prepared(
    name_or_dir: str | os.PathLike[str], *, data_dir: str | os.PathLike[str] | None = None
) -> Path:
    """Finds the folder of the one prepared dataset; arguments and errors as for `open_source`."""
    root = Path(name_or_dir)
    named = str(name_or_dir) in DATASETS.names() or ":" in str(name_or_dir)
    if named and data_dir is not None:
        root = Path(data_dir) / DATASETS.get(str(name_or_dir)).name
    elif not root.is_dir():
        if root.name == str(name_or_dir):
            DATASETS.get(str(name_or_dir))  # a bare word is meant as a name: raises if unknown
            raise ValueError(
                f"dataset {name_or_dir!r} is given by name, which needs data_dir, the folder "
                "that `prepare` wrote to; pass data_dir or the prepared folder itself."
            )
        raise FileNotFoundError(
            f"no folder {root}; pass a prepared dataset's folder or one of {DATASETS.names()}."
        )
    # Folders named incomplete.* hold half-written datasets and do not count.
    found = [
        path.parent
        for path in sorted(root.rglob(_INFO_FILE))
        if not any(part.startswith("incomplete.") for part in path.relative_to(root).parts)
    ]
    if not found:
        raise FileNotFoundError(
            f"no prepared dataset under {root} (no complete {_INFO_FILE}); run the prepare "
            "command first, or pass the folder that it wrote."
        )
    if len(found) > 1:
        raise ValueError(
            f"{root} holds {len(found)} prepared datasets, but one is needed; pass one of "
            f"{[str(path) for path in found]}."
        )
    return found[0]


def _damaged(directory: Path, error: Exception, *, record: str = "") -> DamagedDatasetError:
    what = f"record {record} of {directory}" if record else f"the description of {directory}"
    return DamagedDatasetError(
        f"{what} cannot be read: {error}. Prepared data must be as `prepare` wrote it; delete "
        "the folder and prepare the dataset again."
    )
