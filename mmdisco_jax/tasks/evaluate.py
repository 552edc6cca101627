# SPDX-License-Identifier: Apache-2.0
"""Command `evaluate`: measures sampled clips beside real ones and mismatched controls."""

import json
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from mmdisco_jax import build
from mmdisco_jax.build import Config
from mmdisco_jax.commands.compile_clock import timing_note
from mmdisco_jax.commands.gallery import write_page
from mmdisco_jax.commands.levels import write_levels
from mmdisco_jax.export.clips import read_all
from mmdisco_jax.export.gallery_page import GalleryTable
from mmdisco_jax.io import write_bytes
from mmdisco_jax.metrics.api import Batch
from mmdisco_jax.metrics.evaluation import evaluate

# Real clips are measured in the same way as samples: what they score is what can be reached.
REAL = "real"


def run(config: Config, workdir: Path) -> None:
    """Writes workdir/metrics.json, metrics.md and the gallery index.html, and prints the table.

    Every row is a set of clips, every column a measure with its 95 % bootstrap interval. A score of
    agreement is followed by its control: the same clips, each with the sound of another.
    """
    if jax.process_index():
        return  # measuring is one process's work
    folders = [workdir, *map(Path, config.evaluate.pool)]
    sets = {name: _pooled(folders, name) for name in build.variant_names(config)}
    reference, held_out = _real(config)
    report = evaluate(
        {REAL: held_out, **sets},
        metrics=config.evaluate.metrics,
        fps=config.clip.fps,
        sample_rate_hz=config.clip.sample_rate_hz,
        reference=reference,
        replicates=config.evaluate.replicates,
        seed=config.evaluate.seed,
    )
    protocol = {"config": json.loads(config.to_json_best_effort())}
    text = json.dumps({**protocol, "rows": report.to_json()}, indent=1)
    write_bytes(workdir / "metrics.json", text.encode())
    note = timing_note(workdir)
    write_bytes(workdir / "metrics.md", f"{report.markdown()}\n{note}\n".encode())
    header, body = report.cells()
    table = GalleryTable(
        caption=f"Measures with 95 % intervals. {note}".strip(),
        header=tuple(header),
        rows=tuple(tuple(row) for row in body),
    )
    page = write_page(config, workdir, table)
    shown = report.terminal(note)
    Console(width=max(100, Console(width=10_000).measure(shown).maximum)).print(shown)
    if config.evaluate.levels and any(build.is_guided(config, name) for name in sets):
        write_levels(config, workdir)
    print(f"look and listen: open {page} in a browser")


def _pooled(folders: list[Path], variant: str) -> Batch:
    """One variant's clips of several workdirs, such as other sampling seeds, one after another."""
    sets = [read_all(folder / variant) for folder in folders]
    return {key: np.concatenate([clips[key] for clips in sets]) for key in ("video", "audio")}


def _real(config: Config) -> tuple[Batch, Batch]:
    """Two halves of the real test clips: what sets are compared with, and a set to compare."""
    source = build.fixed_clips(config, "test")
    count = min(config.evaluate.num_real, len(source))
    clips = [source[i] for i in range(count)]
    both = {key: np.stack([np.asarray(clip[key]) for clip in clips]) for key in ("video", "audio")}
    half = count // 2
    return {k: v[:half] for k, v in both.items()}, {k: v[half:] for k, v in both.items()}
