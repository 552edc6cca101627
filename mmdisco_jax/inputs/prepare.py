# SPDX-License-Identifier: Apache-2.0
"""Builds a dataset once; what is already there is kept, what is half there is started again."""

import dataclasses
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import shuffle

from mmdisco_jax.inputs import DATASETS


def prepare(name: str, data_dir: str | os.PathLike[str], **options: Any) -> dict[str, Any]:
    """Writes the dataset `name` under `data_dir`, unless it is already there.

    TFDS writes into a folder named `incomplete.*` and renames it at the end, so a dataset is whole
    or absent. A run that was killed leaves that folder; the next one deletes it and starts again.
    Two runs on the same dataset take turns (a lock file), and the second finds the work done.

    Args:
      name: a registered dataset: "bounce" or "folder".
      data_dir: where datasets are kept; made if missing.
      **options: of the builder, as its `Options` lists them.

    Returns:
      {"dataset", "directory", "splits": {split: clips}, "seconds": {split: seconds},
      "already_prepared": bool, "skipped": number of files left out}, ready for JSON.

    Raises:
      ValueError: an unknown dataset or option, or an option's value out of its range.
      OSError: `data_dir` cannot be written, or the media cannot be read.
    """
    builder_class = DATASETS.get(name)
    _check_options(name, builder_class.OPTIONS, options)
    config = builder_class.config(**options)
    root = Path(data_dir).expanduser()
    root.mkdir(parents=True, exist_ok=True)
    builder = builder_class(config=config, data_dir=str(root), file_format="array_record")
    target = Path(builder.data_dir)
    with _locked(target.parent):
        already = builder.is_prepared()
        for leftover in target.parent.glob(f"incomplete.*_{target.name}"):
            shutil.rmtree(leftover)
        if not already:
            # Beyond 1 GB TFDS would spill records to disk through TensorFlow, unshuffled ones too.
            shuffle.MAX_MEM_BUFFER_SIZE = 1 << 40
            # TFDS makes a folder for downloads even where nothing is downloaded.
            with tempfile.TemporaryDirectory() as downloads:
                builder.download_and_prepare(download_dir=downloads)
    return _summary(name, tfds.builder_from_directory(target), target, already)


def _summary(name: str, builder: Any, target: Path, already: bool) -> dict[str, Any]:
    clips = {split: info.num_examples for split, info in builder.info.splits.items()}
    skipped_file = target / "skipped.json"
    skipped = json.loads(skipped_file.read_text())["count"] if skipped_file.exists() else 0
    clip_seconds = builder.info.metadata["clip_seconds"]
    return {
        "dataset": name,
        "directory": str(target),
        "splits": clips,
        "seconds": {split: count * clip_seconds for split, count in clips.items()},
        "already_prepared": already,
        "skipped": skipped,
    }


def _check_options(name: str, options_class: type, options: dict[str, Any]) -> None:
    fields = dataclasses.fields(options_class)
    known = [field.name for field in fields]
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"dataset {name!r} has no option {unknown}; it has {known}.")
    needed = [
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing := [option for option in needed if option not in options]:
        raise ValueError(f"dataset {name!r} needs the options {missing}; pass them.")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds `folder/.lock`; the system releases it when the process ends, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
