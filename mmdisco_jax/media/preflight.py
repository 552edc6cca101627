# SPDX-License-Identifier: Apache-2.0
"""Parallel inspection and cutting of all inputs, resumable after a kill.

Both stages run in isolated workers and write each result to the work folder as soon as it is known.
"""

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
from mmdisco_jax.media.isolation import Failure, heartbeat, isolated_map
from mmdisco_jax.media.pieces import Piece, cut, read_finished_piece, write_failed_piece
from mmdisco_jax.media.policies import Policies


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One input of the report: its inspection, the action taken, and the clips it gave."""

    entry: Entry
    inspection: Inspection
    action: str
    num_clips: int = 0

    @property
    def used(self) -> bool:
        """True if clips of this input become records."""
        return self.action not in ("error", "skip")

    def most_clips(self, clip_seconds: float) -> int:
        """Upper estimate of the clips from the inspection; 0 for a corrupt file."""
        if self.inspection.problem == "corrupt":
            return 0
        left = self.inspection.duration_seconds - self.entry.start_seconds
        count = math.floor(max(left, 0.0) / clip_seconds)
        return count if self.entry.max_clips is None else min(count, self.entry.max_clips)

    def to_json(self) -> dict[str, Any]:
        """The row for the JSON report, without the thumbnail."""
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
    """Inspects the file of each entry; returns the inspections in order.

    Results are appended to a log in the folder `work`, and files found there are not read again.
    """
    files = list(dict.fromkeys((str(e.path), _path_text(e.sound_path)) for e in entries))
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
    return [known[str(e.path), _path_text(e.sound_path)] for e in entries]


def cut_all(
    entries: Sequence[Entry], spec: ClipSpec, policies: Policies, work: Path, *, num_workers: int
) -> list[Piece]:
    """Cuts each entry into a piece in the folder `work`; returns the pieces in order.

    Pieces that an earlier run finished are reused.
    """
    substitutes = policies.substitutes()
    names = [str(work / f"{_piece_stem(entry)}.array_record") for entry in entries]
    made = {name: piece for name in names if (piece := read_finished_piece(name)) is not None}
    # Rows of a table that differ only in their captions share a piece.
    todo = [i for name, i in dict(zip(names, itertools.count())).items() if name not in made]
    jobs = (
        (
            str(entries[i].path),
            _path_text(entries[i].sound_path),
            spec,
            entries[i].part(**substitutes),
            names[i],
        )
        for i in todo
    )
    results = isolated_map(_cut, jobs, num_workers=num_workers)
    with tqdm(total=len(names), initial=len(made), desc="cut", unit="file") as bar:
        for index, result in results:
            name = names[todo[index]]
            if isinstance(result, Failure):
                result = write_failed_piece(name, result.reason)
            made[name] = result
            bar.update()
    return [made[name] for name in names]


def after_cutting(inspection: Inspection, piece: Piece) -> Inspection:
    """Replaces the problem of an inspection by the one that cutting has found, if any.

    It replaces lesser problems too: a silent file may also have damaged pictures.
    """
    if not piece.problem or inspection.problem == "corrupt":
        return inspection
    return dataclasses.replace(inspection, problem=piece.problem, reason=piece.reason)


# These two run in workers, which import them by name and use their own `heartbeat`.


def _inspect(path: str, sound_path: str | None, spec: ClipSpec) -> Inspection:
    return inspect(path, sound_path, spec, heartbeat)


def _cut(path: str, sound_path: str | None, spec: ClipSpec, part: Any, piece_path: str) -> Piece:
    return cut(path, sound_path, spec, part, piece_path, heartbeat)


def _read_log(log: Path) -> dict[tuple[str, str | None], Inspection]:
    """Reads the whole lines of the log, and cuts off a last line that a kill has torn."""
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


def _piece_stem(entry: Entry) -> str:
    """File name, without suffix, of the entry's piece."""
    text = json.dumps([str(entry.path), entry.start_seconds, entry.max_clips])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _path_text(path: Path | None) -> str | None:
    return None if path is None else str(path)
