# SPDX-License-Identifier: Apache-2.0
"""`evaluate`: measures sampled clips beside real ones and mismatched controls."""

import json
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from mmdisco_jax.export.clips import read_all
from mmdisco_jax.export.gallery_page import GalleryTable
from mmdisco_jax.io import write_bytes
from mmdisco_jax.metrics.api import Batch
from mmdisco_jax.metrics.evaluation import evaluate
from mmdisco_jax.system import System
from mmdisco_jax.tasks.compile_clock import timing_note
from mmdisco_jax.tasks.gallery import write_page
from mmdisco_jax.tasks.levels import write_levels

# Real clips are measured in the same way as samples: what they score is what can be reached.
REAL = "real"


def run(system: System, workdir: Path) -> None:
    """Writes workdir/metrics.json, metrics.md and the gallery index.html, and prints the table.

    Every row is a measure with its 95 % bootstrap interval, every column a set of clips. A score of
    agreement is followed by its control: the same clips, each with the sound of another.
    """
    if jax.process_index():
        return  # measuring is one process's work
    experiment, settings = system.experiment, system.experiment.evaluate
    folders = [workdir, *map(Path, settings.pool)]
    sets = {name: pooled(folders, name) for name in experiment.variant_names}
    reference, held_out = _real(system)
    report = evaluate(
        {REAL: held_out, **sets},
        metrics=settings.metrics,
        fps=experiment.clip.fps,
        sample_rate_hz=experiment.clip.sample_rate_hz,
        reference=reference,
        weights=settings.weights,
        replicates=settings.replicates,
        seed=settings.seed,
    )
    text = json.dumps({"config": experiment.resolved, "rows": report.to_json()}, indent=1)
    write_bytes(workdir / "metrics.json", text.encode())
    note = timing_note(workdir)
    write_bytes(workdir / "metrics.md", f"{report.markdown()}\n{note}\n".encode())
    header, body = report.cells()
    table = GalleryTable(
        caption=f"Measures with 95 % intervals. {note}".strip(),
        header=tuple(header),
        rows=tuple(tuple(row) for row in body),
    )
    page = write_page(system, workdir, table)
    shown = report.terminal(note)
    Console(width=max(100, Console(width=10_000).measure(shown).maximum)).print(shown)
    if settings.levels and any(experiment.variant(name).is_guided for name in sets):
        write_levels(system, workdir)
    print(f"look and listen: open {page} in a browser")


def pooled(folders: list[Path], variant: str) -> Batch:
    """Clips of one variant in several workdirs, such as other sampling seeds, one after another."""
    sets = [read_all(folder / variant) for folder in folders]
    return {key: np.concatenate([clips[key] for clips in sets]) for key in ("video", "audio")}


def _real(system: System) -> tuple[Batch, Batch]:
    """Two halves of the real test clips: a reference, and a set to compare with it."""
    clips = system.clips("test")
    half = min(system.experiment.evaluate.num_real, len(clips)) // 2
    return clips[:half], clips[half : min(system.experiment.evaluate.num_real, len(clips))]
