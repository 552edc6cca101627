# SPDX-License-Identifier: Apache-2.0
"""Builds a dataset once; what is already there is kept, what is half there goes on."""

import dataclasses
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import shuffle

from mmdisco_jax.inputs import DATASETS
from mmdisco_jax.inputs.entries import Entry, assign_splits, fill_empty_splits
from mmdisco_jax.inputs.media_builder import MediaBuilder, cut_key
from mmdisco_jax.inputs.pieces import Piece
from mmdisco_jax.inputs.policies import counts, mark_duplicates, require_allowed
from mmdisco_jax.inputs.preflight import Row, after_cutting, cut_all, inspect_all

REPORT_FILE, QUARANTINE_FILE = "preflight.json", "quarantine.json"
Show = Callable[[Sequence[Row]], None]


def prepare(
    name: str,
    data_dir: str | os.PathLike[str],
    *,
    num_workers: int = 1,
    show: Show = lambda rows: None,
    **options: Any,
) -> dict[str, Any]:
    """Writes the dataset `name` under `data_dir`, unless it is already there.

    TFDS writes into a folder named `incomplete.*` and renames it at the end, so a dataset is whole
    or absent. Of media files, what a killed run has inspected and cut lies in a folder `pieces.*`,
    from which the next run goes on to the same bytes; it is deleted at the end. Two runs on the
    same dataset take turns (a lock file), and the second finds the work done.

    Args:
      name: a registered dataset, such as "bounce" or "folder".
      data_dir: where datasets are kept; made if missing.
      num_workers: processes that read media files, >= 1.
      show: called with the report's rows, once the files are inspected, and once they are cut.
      **options: of the builder, as its `OPTIONS` lists them.

    Returns:
      {"dataset", "directory", "splits": {split: clips}, "seconds": {split: seconds},
      "already_prepared": bool, "quarantined": number of files left out}, ready for JSON.

    Raises:
      ValueError: an unknown dataset or option, or an option's value out of its range.
      PolicyError: files have problems that the options call errors.
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
            _build(builder, root, num_workers, show)
    return _summary(name, tfds.builder_from_directory(target), target, already)


def _build(builder: Any, root: Path, num_workers: int, show: Show) -> None:
    work = None
    if isinstance(builder, MediaBuilder):
        work = _give_pieces(builder, root, num_workers, show)
    # Beyond 1 GB TFDS would spill records to disk through TensorFlow, unshuffled ones too.
    shuffle.MAX_MEM_BUFFER_SIZE = 1 << 40
    # TFDS makes a folder for downloads even where nothing is downloaded.
    with tempfile.TemporaryDirectory() as downloads:
        builder.download_and_prepare(download_dir=downloads)
    if work is not None:
        shutil.rmtree(work)


def _give_pieces(builder: MediaBuilder, root: Path, num_workers: int, show: Show) -> Path:
    """Inspects and cuts the builder's entries; returns the folder with the pieces."""
    options = builder.options
    spec, policies = options.spec(), options.policies()
    entries = assign_splits(options.entries(), options.shares(), seed=options.seed)
    work = root / builder.name / f"pieces.{cut_key(options, options.entries())}"
    work.mkdir(parents=True, exist_ok=True)
    inspections = inspect_all(entries, spec, work, num_workers=num_workers)
    inspections = mark_duplicates(entries, inspections)
    rows = [
        Row(entry=entry, inspection=found, action=policies.action(found.problem))
        for entry, found in zip(entries, inspections, strict=True)
    ]
    show(rows)
    require_allowed(entries, inspections, policies)
    used = [row for row in rows if row.used]
    pieces = cut_all([row.entry for row in used], spec, policies, work, num_workers=num_workers)
    rows, chosen = _after(rows, pieces, policies)
    show(rows)
    require_allowed(entries, [row.inspection for row in rows], policies)
    kept = fill_empty_splits(
        [entry for entry, _ in chosen], [piece.num_clips for _, piece in chosen], options.shares()
    )
    _require_clips(rows, kept)
    cut = [(entry, piece) for entry, (_, piece) in zip(kept, chosen, strict=True)]
    builder.give(cut, reports(rows))
    return work


def _after(
    rows: Sequence[Row], pieces: Sequence[Piece], policies: Any
) -> tuple[list[Row], list[tuple[Entry, Piece]]]:
    """The rows with what cutting has shown, and the pieces that become records."""
    remaining = iter(pieces)
    done, chosen = [], []
    for row in rows:
        if row.used:
            piece = next(remaining)
            found = after_cutting(row.inspection, piece)
            action = policies.action(found.problem)
            if not piece.num_clips:
                action = "error" if action == "error" else "skip"
            used = action not in ("error", "skip")
            row = dataclasses.replace(
                row, inspection=found, action=action, num_clips=piece.num_clips if used else 0
            )
            if used:
                chosen.append((row.entry, piece))
        done.append(row)
    return done, chosen


def _require_clips(rows: Sequence[Row], kept: Sequence[Entry]) -> None:
    if kept:
        return
    left_out = [f"{row.entry.name}: {row.inspection.reason}" for row in rows][:3]
    raise ValueError(
        f"none of the {len(rows)} files gives a clip: {'; '.join(left_out)}. See the report, and "
        "change the files, the clip's length or the policies."
    )


def reports(rows: Sequence[Row]) -> dict[str, Any]:
    """What is written beside the records: all inputs, and those that were left out."""
    return {
        REPORT_FILE: {
            "counts": counts([row.inspection for row in rows]),
            "clips": sum(row.num_clips for row in rows),
            "files": [row.to_json() for row in rows],
        },
        QUARANTINE_FILE: [
            {
                "file": row.entry.name,
                "split": row.entry.split,
                "problem": row.inspection.problem,
                "reason": row.inspection.reason,
            }
            for row in rows
            if not row.used
        ],
    }


def _summary(name: str, builder: Any, target: Path, already: bool) -> dict[str, Any]:
    clips = {split: info.num_examples for split, info in builder.info.splits.items()}
    quarantine = target / QUARANTINE_FILE
    left_out = len(json.loads(quarantine.read_text())) if quarantine.exists() else 0
    clip_seconds = builder.info.metadata["clip_seconds"]
    return {
        "dataset": name,
        "directory": str(target),
        "splits": clips,
        "seconds": {split: count * clip_seconds for split, count in clips.items()},
        "already_prepared": already,
        "quarantined": left_out,
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
