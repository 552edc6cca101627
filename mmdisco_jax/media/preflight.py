# SPDX-License-Identifier: Apache-2.0
"""Every input inspected, then cut, in worker processes; what is done stays done if it is killed."""

import dataclasses
import hashlib
import itertools
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmdisco_jax.media.cutting import ClipSpec
from mmdisco_jax.media.entries import Entry
from mmdisco_jax.media.inspection import Inspection, inspect
from mmdisco_jax.media.isolation import Failure, alive, isolated_map
from mmdisco_jax.media.pieces import Piece, cut, failed, read_note
from mmdisco_jax.media.policies import Policies


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One input in the report: what it is, what is done with it, and how many clips it gave."""

    entry: Entry
    inspection: Inspection
    action: str
    num_clips: int = 0

    @property
    def used(self) -> bool:
        return self.action not in ("error", "skip")

    def most_clips(self, clip_seconds: float) -> int:
        """How many clips cutting can give, by the inspection; 0 if that cannot be trusted."""
        if self.inspection.problem == "corrupt":
            return 0
        left = self.inspection.duration_seconds - self.entry.start_seconds
        count = math.floor(max(left, 0.0) / clip_seconds)
        return count if self.entry.max_clips is None else min(count, self.entry.max_clips)

    def to_json(self) -> dict[str, Any]:
        """All but the thumbnail; for a file that is left out, why."""
        facts = dataclasses.asdict(self.inspection)
        del facts["thumbnail"]
        return {
            "file": self.entry.name,
            "split": self.entry.split,
            "action": self.action,
            "clips": self.num_clips,
            **facts,
        }


def inspect_all(
    entries: Sequence[Entry], spec: ClipSpec, work: Path, *, num_workers: int
) -> list[Inspection]:
    """What each entry's file is, in order; `work` keeps what is known, line by line."""
    files = list(dict.fromkeys((str(e.path), _text(e.sound_path)) for e in entries))
    log = work / "inspections.jsonl"
    known = _read_log(log)
    todo = [file for file in files if file not in known]
    jobs = [(path, sound, spec) for path, sound in todo]
    with open(log, "a", encoding="utf-8") as lines:
        results = isolated_map(_inspect, jobs, num_workers=num_workers)
        with tqdm(total=len(files), initial=len(known), desc="inspect", unit="file") as bar:
            for index, result in results:
                if isinstance(result, Failure):
                    result = Inspection(problem="corrupt", reason=result.reason)
                known[todo[index]] = result
                facts = dataclasses.asdict(result)
                lines.write(json.dumps([*todo[index], facts]) + "\n")
                lines.flush()
                bar.update()
    return [known[str(e.path), _text(e.sound_path)] for e in entries]


def cut_all(
    entries: Sequence[Entry], spec: ClipSpec, policies: Policies, work: Path, *, num_workers: int
) -> list[Piece]:
    """The piece of each entry, in order; pieces that lie in `work` are kept."""
    stand_ins = policies.stand_ins()
    names = [str(work / f"{_safe(entry)}.array_record") for entry in entries]
    made = {name: piece for name in names if (piece := read_note(name)) is not None}
    # Rows of a table that differ in nothing but their captions share a piece.
    todo = [i for name, i in dict(zip(names, itertools.count())).items() if name not in made]
    jobs = (
        (
            str(entries[i].path),
            _text(entries[i].sound_path),
            spec,
            entries[i].part(**stand_ins),
            names[i],
        )
        for i in todo
    )
    results = isolated_map(_cut, jobs, num_workers=num_workers)
    with tqdm(total=len(names), initial=len(made), desc="cut", unit="file") as bar:
        for index, result in results:
            name = names[todo[index]]
            made[name] = failed(name, result.reason) if isinstance(result, Failure) else result
            bar.update()
    return [made[name] for name in names]


def after_cutting(inspection: Inspection, piece: Piece) -> Inspection:
    """The inspection, with a problem that only cutting has shown.

    A smaller one that is known does not hide it: a silent file may have damaged pictures.
    """
    if not piece.problem or inspection.problem == "corrupt":
        return inspection
    return dataclasses.replace(inspection, problem=piece.problem, reason=piece.reason)


# What runs in workers: importable by name, and `alive` is the worker's own.


def _inspect(path: str, sound_path: str | None, spec: ClipSpec) -> Inspection:
    return inspect(path, sound_path, spec, alive)


def _cut(path: str, sound_path: str | None, spec: ClipSpec, part: Any, piece_path: str) -> Piece:
    return cut(path, sound_path, spec, part, piece_path, alive)


def _read_log(log: Path) -> dict[tuple[str, str | None], Inspection]:
    """The lines that are whole: a kill may have torn the last one, which is then cut off."""
    known = {}
    if not log.exists():
        return known
    whole = 0
    for line in log.read_bytes().splitlines(keepends=True):
        try:
            path, sound, facts = json.loads(line)
            inspection = Inspection(**facts)
        except (ValueError, TypeError):
            break
        if not line.endswith(b"\n"):
            break
        known[path, sound] = inspection
        whole += len(line)
    os.truncate(log, whole)
    return known


def _safe(entry: Entry) -> str:
    """A file name for the entry's piece."""
    text = json.dumps([str(entry.path), entry.start_seconds, entry.max_clips])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
