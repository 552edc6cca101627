# SPDX-License-Identifier: Apache-2.0
"""`evaluate`: measures sampled clips beside real ones and mismatched controls."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from mmdisco_jax.export.clips import read_all
from mmdisco_jax.export.gallery_page import GalleryTable
from mmdisco_jax.io import write_bytes
from mmdisco_jax.locks import one_owner
from mmdisco_jax.metrics.api import Batch
from mmdisco_jax.metrics.evaluation import evaluate
from mmdisco_jax.metrics.report import DIFFERENCES, Report, Unmeasured
from mmdisco_jax.provenance import announce
from mmdisco_jax.system import System
from mmdisco_jax.tasks.compile_clock import timing_note
from mmdisco_jax.tasks.gallery import write_page
from mmdisco_jax.tasks.levels import levels_problem, write_levels
from mmdisco_jax.tasks.records import evaluation_record

# Real clips are measured in the same way as samples: what they score is what can be reached.
REAL = "real"
_TRAINING_BATCH = 64


@one_owner
def run(system: System, workdir: Path) -> None:
    """Writes workdir/metrics.json, metrics.md and, with media, index.html; prints the table.

    Every row is a measure with its 95 % interval, every column a set of clips. A score of agreement
    is followed by its control: the same clips, each with the sound of another. A second table has
    the differences between variants of the same noise. What cannot be measured is listed with the
    reason. Samples that something else made than the config says are refused; `made_by` in
    metrics.json says what the measures rest on.
    """
    if jax.process_index():
        return  # measuring is one process's work
    experiment, settings = system.experiment, system.experiment.evaluate
    folders = [workdir, *map(Path, settings.pool)]
    record = evaluation_record(system, folders)
    announce(record)
    sets = {name: pooled(folders, name) for name in experiment.variant_names}
    reference, held_out = _real(system)
    report = evaluate(
        ({REAL: held_out} if held_out else {}) | sets,
        metrics=settings.metrics,
        fps=experiment.clip.fps,
        sample_rate_hz=experiment.clip.sample_rate_hz,
        reference=reference,
        training=TrainingClips(system),
        compare=_compared(system),
        weights=settings.weights,
        replicates=settings.replicates,
        seed=settings.seed,
    )
    levels = settings.levels and any(experiment.variant(name).is_guided for name in sets)
    if levels and (problem := levels_problem(system)):
        levels, missing = False, Unmeasured(name="levels", reason=problem)
        report = dataclasses.replace(report, unmeasured=(*report.unmeasured, missing))
    result = {"config": experiment.resolved, "made_by": record, **report.record()}
    text = json.dumps(result, indent=1)
    write_bytes(workdir / "metrics.json", text.encode())
    note = timing_note(workdir)
    write_bytes(workdir / "metrics.md", f"{report.markdown()}\n{note}\n".encode())
    media = experiment.sample.num_media  # without any there are no clips to show on a page
    page = write_page(system, workdir, _tables(report, note)) if media else None
    shown = report.terminal(note)
    Console(width=max(100, Console(width=10_000).measure(shown).maximum)).print(shown)
    if levels:
        write_levels(system, workdir)
    if page:
        print(f"look and listen: open {page} in a browser")


def pooled(folders: list[Path], variant: str) -> Batch:
    """Clips of one variant in several workdirs, such as other sampling seeds, one after another."""
    sets = [read_all(folder / variant) for folder in folders]
    lacking = {"video", "audio"} - set.intersection(*(set(clips) for clips in sets))
    if lacking:
        raise ValueError(
            f"the samples of {variant!r} hold {sorted(sets[0])}, but measures need a video and a "
            f"sound, and lack {sorted(lacking)}: measure other modalities by your own code, from "
            "the .npz files."
        )
    return {key: np.concatenate([clips[key] for clips in sets]) for key in ("video", "audio")}


class TrainingClips:
    """Batches of the clips that the models are trained on, read anew by each metric that asks.

    At most `evaluate.num_training` clips, evenly spread over the split.
    """

    def __init__(self, system: System):
        self._system = system

    def __iter__(self) -> Iterator[Batch]:
        clips = self._system.clips("train")
        count = min(self._system.experiment.evaluate.num_training, len(clips))
        chosen = np.linspace(0, len(clips), count, endpoint=False).astype(int)
        for first in range(0, count, _TRAINING_BATCH):
            some = [clips[int(i)] for i in chosen[first : first + _TRAINING_BATCH]]
            yield {m: np.stack([np.asarray(one[m]) for one in some]) for m in ("video", "audio")}


def _real(system: System) -> tuple[Batch | None, Batch | None]:
    """Two halves of the real test clips: a reference, and a set to compare with it.

    Where there are more than `evaluate.num_real`, they are evenly spread over the split.
    """
    clips, wanted = system.clips("test"), system.experiment.evaluate.num_real
    step = max(1, len(clips) // max(1, wanted))
    count = min(len(clips), wanted)
    half = count // 2
    reference = clips[: half * step : step] if half else None
    return reference, clips[half * step : count * step : step] if count else None


def _compared(system: System) -> list[tuple[str, str]]:
    """Each variant with the one that others are compared with: by default the first unguided."""
    experiment = system.experiment
    names, base = experiment.variant_names, experiment.evaluate.baseline
    if base and base not in names:
        raise ValueError(f"evaluate.baseline={base!r} is no variant: choose from {list(names)}.")
    free = [name for name in names if not experiment.variant(name).is_guided]
    base = base or (free[0] if free else names[0])
    return [(name, base) for name in names if name != base]


def _tables(report: Report, note: str) -> tuple[GalleryTable, ...]:
    """Tables of the page: measures, and differences where there are some."""
    shown = [(f"Measures with 95 % intervals. {note}".strip(), report.cells(), report.notes())]
    if report.differences:
        caption = f"{DIFFERENCES}. A star marks an interval without 0, or without 1 for a ratio."
        shown.append((caption, report.difference_cells(), []))
    return tuple(
        GalleryTable(
            caption=caption, header=tuple(header), rows=tuple(map(tuple, body)), notes=tuple(notes)
        )
        for caption, (header, body), notes in shown
    )
