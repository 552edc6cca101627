# SPDX-License-Identifier: Apache-2.0
"""Provenance records of the modes: what a training, samples and measures are made with.

What a note does not record cannot be compared. Then `sample` refuses to go on, since it would mix
new samples with what may be others; `train` and `evaluate` go on and say so.
"""

import hashlib
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmdisco_jax.checks import listed
from mmdisco_jax.losses import DISCRIMINATOR, SUPER_RESOLUTION
from mmdisco_jax.provenance import Record, as_json, code_version, differences, entry, file_entry
from mmdisco_jax.system import System

NOTE = "made_by.json"
_SECTIONS = ("clip", "bases", "discriminator", "guidance")
# These do not decide what a sample is, or are compared by the contents of the files they name.
_FREE = ("num_samples", "num_media", "force_schedule", "discriminator_weights")


def training_record(system: System) -> Record:
    """What a training is made with: data, latents, fakes, weights, schedules and code."""
    train, data = system.experiment.train, system.experiment.data
    record = code_version() | {"data": data_entry(system, "train")}
    weights: Record = {}
    if train.init_from:
        weights["init_from"] = file_entry(train.init_from)
    if train.target != SUPER_RESOLUTION:
        record["schedules"] = system.schedule_digests
    record |= _cache_entry("latents", data.latents)
    if data.latents or (train.target == DISCRIMINATOR and system.reads_text):
        record["codecs"] = {name: base.provenance() for name, base in system.bases.items()}
    if train.target == DISCRIMINATOR:
        weights |= base_entries(system)
        if train.objective.fakes != "mismatched":
            record |= _cache_entry("fakes", system.experiment.weights.get("fakes", ""))
    return as_json(record | {"weights": weights})


def sampling_record(system: System, variants: Collection[str], *, present: bool = False) -> Record:
    """What samples are made with: weights, codecs, noise levels, settings of each variant, code.

    Args:
      present: leave out weights that are not on this computer, as measuring needs none.
    """
    experiment = system.experiment
    resolved = as_json(experiment.resolved)
    settings = {name: resolved[name] for name in _SECTIONS}
    weights = base_entries(system, present)
    large = experiment.super_resolution
    if large:
        settings["super_resolution"] = resolved["super_resolution"] | {"weights": ""}
        if not present or Path(large.weights).is_file():
            weights["super_resolution"] = file_entry(large.weights)
    names = [name for name in system.bases if name in weights]
    return as_json(
        code_version()
        | {
            "weights": weights,
            "codecs": {name: system.bases[name].provenance() for name in names},
            "schedules": system.schedule_digests,
            "settings": settings,
            "variants": {name: _variant(system, name, present) for name in variants},
            "config": resolved,
        }
    )


def base_entries(system: System, present: bool = False) -> Record:
    """Entries of the base models' weights; `present`: of those that are on this computer."""
    found = {}
    for name, base in system.bases.items():
        if not present or Path(base.weights).exists():
            digest = base.digest()
            found |= {name: entry(base.weights, digest)} if digest else {}
    return found


def _variant(system: System, name: str, present: bool) -> Record:
    record = dict(system.experiment.variant_records[name])
    for free in _FREE:
        record.pop(free, None)
    record["condition"] = {k: v for k, v in record["condition"].items() if k != "media"}
    record["levels"] = levels_digest(system, name)
    settings = system.experiment.variant(name)
    path = settings.discriminator_weights or system.experiment.weights.get("discriminator", "")
    if settings.is_guided and (not present or Path(path).is_file()):
        record["discriminator"] = file_entry(path)
    return record


def levels_digest(system: System, variant: str) -> str:
    """SHA-256 of the path of noise levels that a variant visits, to nine decimal places."""
    path = system.levels(system.experiment.variant(variant))
    text = json.dumps([_rounded(x) for x in (path.times, path.model_times, path.end or [])])
    return hashlib.sha256(text.encode()).hexdigest()


def _rounded(x: Any) -> list[float]:
    """Numbers ready for JSON; another computer may compute another last digit."""
    return np.asarray(x, float).round(9).tolist()


def data_entry(system: System, split: str) -> Record:
    """Entry of a split of the prepared data."""
    if split not in system.data_digests:
        raise ValueError(
            f"{system.data_folder} has no split {split!r}: it has {sorted(system.data_digests)}."
        )
    return entry(system.data_folder, system.data_digests[split])


def _cache_entry(name: str, folder: str) -> Record:
    """Entry of latents or fakes: the SHA-256 of the note on what made them, and how many.

    Nothing for a cache that is not there: who reads it says so.
    """
    note = Path(folder) / NOTE
    if not folder or not note.is_file():
        return {}
    content = json.dumps(json.loads(note.read_text()), sort_keys=True)
    return {name: entry(folder, hashlib.sha256(content.encode()).hexdigest())}


def read_note(folder: Path) -> Record | None:
    """The note of `sample` on what made the samples in a folder; None if there is none."""
    path = folder / NOTE
    if not path.is_file():
        return None
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}), so that nothing says what made the samples there: "
            "sample again in another workdir."
        ) from error


def is_whole(note: Mapping[str, Any] | None) -> bool:
    """Whether a note records digests, which those of older releases do not."""
    return bool(note and "weights" in note and "variants" in note)


def earlier_code(note: Mapping[str, Any], record: Mapping[str, Any]) -> list[Record]:
    """Versions of the code, other than the record's, that made a part of a folder's samples."""
    found = [*note.get("earlier", ()), {key: note.get(key) for key in code_version()}]
    now = {key: record[key] for key in code_version()}
    return [code for i, code in enumerate(found) if code != now and code not in found[:i]]


def sample_differences(
    note: Mapping[str, Any], mine: Mapping[str, Any], *, ignored: Collection[str] = ()
) -> list[str]:
    """How what made a folder's samples differs from a config, in the variants that both have.

    Args:
      note, mine: sampling records; weights that `mine` leaves out are not compared.
      ignored: as of `provenance.differences`.
    """
    shared = note["variants"].keys() & mine["variants"].keys()
    gone = [
        f"{part}.{name}"
        for part in ("weights", "codecs")
        for name in note[part].keys() - mine[part].keys()
    ]
    gone += [
        f"variants.{name}.discriminator"
        for name in shared
        if "discriminator" not in mine["variants"][name]
    ]
    parts = [
        {**record, "variants": {name: record["variants"][name] for name in shared}}
        for record in (note, mine)
    ]
    return differences(*parts, ignored=("config", "earlier", *gone, *ignored))


def evaluation_record(system: System, folders: Sequence[Path]) -> Record:
    """What measures rest on: the notes of the measured folders, real clips, networks and code.

    Args:
      folders: the workdir, and those that are pooled with it.

    Raises:
      ValueError: a folder's samples were made by something else than the config says, apart from
        the seed of the pooled ones, or two folders hold the same samples.
    """
    names, notes = system.experiment.variant_names, [read_note(folder) for folder in folders]
    mine = sampling_record(system, names, present=True)
    seeds = tuple(f"variants.{name}.seed" for name in names)
    # The given media are not read again, and the size of a batch does not decide what a sample is.
    skipped = ("conditions", "batch_size")
    conditions = tuple(f"variants.{name}.{key}" for name in names for key in skipped)
    for folder, note in zip(folders, notes, strict=True):
        if note is None or not is_whole(note):
            print(f"{folder}: no note says which weights made these samples", file=sys.stderr)
            continue
        free = conditions if folder == folders[0] else (*conditions, *seeds)
        if lines := sample_differences(note, mine, ignored=free):
            raise ValueError(
                f"{folder} holds samples of another config or other weights: "
                f"{listed(lines, separator='; ')}. Set these back, or sample again in another "
                "workdir."
            )
    _require_pool(folders, notes, seeds)
    networks = {
        name: file_entry(path) if Path(path).is_file() else path
        for name, path in system.experiment.evaluate.weights.items()
    }
    samples = [
        {"folder": str(folder), "note": note or "not recorded"}
        for folder, note in zip(folders, notes, strict=True)
    ]
    data = {split: data_entry(system, split) for split in system.data_digests}
    record = {"samples": samples, "data": data, "weights": networks}
    last = system.experiment.variant(names[-1])
    if system.experiment.evaluate.levels and last.is_guided:  # the discriminator itself is measured
        record["levels"] = mine["weights"] | {
            "discriminator": mine["variants"][names[-1]].get("discriminator")
        }
    return code_version() | record


def _require_pool(
    folders: Sequence[Path], notes: Sequence[Record | None], seeds: tuple[str, ...]
) -> None:
    """ValueError unless the folders differ in their seeds, and in nothing else."""
    first, *others = notes
    for folder, note in zip(folders[1:], others, strict=True):
        if not (first and note and is_whole(first) and is_whole(note)):
            raise ValueError(
                f"{folders[0] if note and is_whole(note) else folder} has no {NOTE} with the "
                "digests of the weights that made its samples, so that they cannot be pooled: "
                "sample again, or measure each folder alone."
            )
        if lines := sample_differences(first, note, ignored=seeds):
            raise ValueError(
                f"the samples in {folder} are not those of {folders[0]} with another seed: "
                f"{listed(lines, separator='; ')}. Pool folders that differ in sample.seed only."
            )
    _require_other_seeds(folders, notes)


def _require_other_seeds(folders: Sequence[Path], notes: Sequence[Record | None]) -> None:
    """ValueError if two folders hold samples of one variant and seed: they are the same samples."""
    seen: dict[tuple[str, int], int] = {}
    for number, note in enumerate(notes):
        for name, variant in (note or {}).get("variants", {}).items():
            other = seen.setdefault((name, variant["seed"]), number)
            if other != number:
                raise ValueError(
                    f"{folders[number]} and {folders[other]} hold the same samples of {name}, of "
                    f"seed {variant['seed']}: a pooled sample must not count twice. Sample with "
                    "another --config.sample.seed."
                )
