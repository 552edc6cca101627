# SPDX-License-Identifier: Apache-2.0
"""Dataset preparation: builds a dataset once and resumes an interrupted build of media files."""

import contextlib
import dataclasses
import io
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import shuffle
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from mmdisco_jax.datasets import DATASETS
from mmdisco_jax.media.builder import MediaBuilder, cut_key
from mmdisco_jax.media.entries import Entry, assign_splits, fill_empty_splits
from mmdisco_jax.media.pieces import Piece
from mmdisco_jax.media.policies import Policies, counts, mark_duplicates, require_allowed
from mmdisco_jax.media.preflight import Row, after_cutting, cut_all, inspect_all
from mmdisco_jax.media.work_folder import claim, discard, discard_if_last, locked, require_space

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
    or absent. For media files, inspections and cut pieces are kept in a folder `pieces.*` until the
    dataset is complete: a run that was killed resumes from there, and writes the same bytes as an
    uninterrupted one. A simulated dataset starts again from its first clip. A lock file makes two
    runs on the same dataset take turns, and the second one finds the work done.

    Args:
      name: a registered dataset, such as "bounce" or "folder".
      data_dir: folder of all datasets; made if missing.
      num_workers: processes that read media files, >= 1.
      show: called with the report's rows, once after inspection and once after cutting.
      **options: fields of the builder's `OPTIONS`.

    Returns:
      {"dataset", "directory", "splits": {split: clips}, "seconds": {split: seconds},
      "already_prepared": bool, "quarantined": number of files left out}, ready for JSON.

    Raises:
      ValueError: an unknown dataset or option, or a value out of range.
      PolicyError: files have problems whose policy is "error".
      OSError: `data_dir` cannot be written, or the media cannot be read.
    """
    builder_class = DATASETS.get(name)
    _check_options(name, builder_class.OPTIONS, options)
    config = builder_class.config(**options)
    root = Path(data_dir).expanduser()
    root.mkdir(parents=True, exist_ok=True)
    builder = builder_class(config=config, data_dir=str(root), file_format="array_record")
    target = Path(builder.data_dir)
    work = None
    if isinstance(builder, MediaBuilder):
        entries = builder.options.entries()
        work = root / builder.name / f"pieces.{cut_key(builder.options, entries)}"
    with locked(target.parent):
        already = builder.is_prepared()
        for leftover in target.parent.glob(f"incomplete.*_{target.name}"):
            shutil.rmtree(leftover)
        if already and work is not None:
            discard_if_last(work, config.name)
        elif work is not None:
            with locked(work):
                claim(work, config.name)
                _inspect_and_cut(builder, entries, work, num_workers, show)
                _build(builder, target)
                discard(work)
        elif not already:
            _build(builder, target)
    return _summary(name, tfds.builder_from_directory(target), target, already)


def _serialized(self: ExampleSerializer, example: Any) -> bytes:
    """Serialises an example so that equal examples give equal bytes; TFDS leaves the order open."""
    return self.get_tf_example(example).SerializeToString(deterministic=True)


def _build(builder: Any, target: Path) -> None:
    # Above 1 GB TFDS would spill records to disk through TensorFlow, even without shuffling.
    shuffle.MAX_MEM_BUFFER_SIZE = 1 << 40
    ExampleSerializer.serialize_example = _serialized
    # TFDS makes a folder for downloads although nothing is downloaded. This name lets the next run
    # remove it if this one is killed.
    downloads = target.with_name(f"incomplete.downloads_{target.name}")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints a note on downloads
            builder.download_and_prepare(download_dir=downloads)
    finally:
        shutil.rmtree(downloads, ignore_errors=True)


def _inspect_and_cut(
    builder: MediaBuilder, entries: Sequence[Entry], work: Path, num_workers: int, show: Show
) -> None:
    """Inspects the entries, cuts them into `work`, and passes the pieces to the builder."""
    options = builder.options
    spec, policies = options.spec(), options.policies()
    entries = assign_splits(entries, options.shares(), seed=options.seed)
    inspections = inspect_all(entries, spec, work, num_workers=num_workers)
    inspections = mark_duplicates(entries, inspections, policies)
    rows = [
        Row(entry=entry, inspection=found, action=policies.action(found.problem))
        for entry, found in zip(entries, inspections, strict=True)
    ]
    show(rows)
    require_allowed(entries, inspections, policies)
    used = [row for row in rows if row.used]
    require_space(work, sum(row.most_clips(spec.clip_seconds) for row in used) * spec.num_bytes)
    pieces = cut_all([row.entry for row in used], spec, policies, work, num_workers=num_workers)
    rows, chosen = _rows_after_cutting(rows, pieces, policies)
    filled = iter(
        fill_empty_splits(
            [row.entry for row in rows if row.used],
            [piece.num_clips for piece in chosen],
            options.shares(),
        )
    )
    rows = [dataclasses.replace(row, entry=next(filled)) if row.used else row for row in rows]
    show(rows)
    require_allowed(entries, [row.inspection for row in rows], policies)
    _require_clips(rows)
    kept = [row.entry for row in rows if row.used]
    builder.set_pieces(list(zip(kept, chosen, strict=True)), reports(rows))


def _rows_after_cutting(
    rows: Sequence[Row], pieces: Sequence[Piece], policies: Policies
) -> tuple[list[Row], list[Piece]]:
    """Adds the results of cutting to the rows; returns them and the pieces of the used rows."""
    remaining = iter(pieces)
    done, chosen = [], []
    for row in rows:
        if row.used:
            piece = next(remaining)
            found = after_cutting(row.inspection, piece)
            action = policies.action(found.problem)
            if not piece.num_clips and action != "error":
                action = "skip"  # nothing to keep
            row = dataclasses.replace(row, inspection=found, action=action)
            if row.used:
                row = dataclasses.replace(row, num_clips=piece.num_clips)
                chosen.append(piece)
        done.append(row)
    return done, chosen


def _require_clips(rows: Sequence[Row]) -> None:
    if any(row.used for row in rows):
        return
    left_out = [f"{row.entry.name}: {row.inspection.reason}" for row in rows][:3]
    raise ValueError(
        f"none of the {len(rows)} files gives a clip: {'; '.join(left_out)}. See the report, and "
        "change the files, the clip's length or the policies."
    )


def reports(rows: Sequence[Row]) -> dict[str, Any]:
    """Makes the JSON reports written beside the records: all inputs, and those left out."""
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
        "seconds": {split: round(count * clip_seconds, 3) for split, count in clips.items()},
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
