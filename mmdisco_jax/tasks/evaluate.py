# SPDX-License-Identifier: Apache-2.0
"""`evaluate`: measures what `sample` wrote, beside real clips and re-paired controls."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from mmdisco_jax import build
from mmdisco_jax.build import Config
from mmdisco_jax.commands.compile_clock import timing_note
from mmdisco_jax.commands.gallery import write_page
from mmdisco_jax.commands.levels import write_levels
from mmdisco_jax.export.clips import read_all
from mmdisco_jax.export.gallery_page import GalleryTable
from mmdisco_jax.io import write_bytes
from mmdisco_jax.metrics import METRICS
from mmdisco_jax.metrics.api import Batch, Context, Result

# Real clips are measured in the same way as samples: what they score is what can be reached.
REAL = "real"


def run(config: Config, workdir: Path) -> None:
    """Writes workdir/metrics.json, metrics.md and the gallery index.html, and prints the table.

    Every row is a set of clips, every column a measure with its 95 % bootstrap interval. A score of
    agreement is followed by its control: the same clips with their sounds re-paired.
    """
    if jax.process_index():
        return  # measuring is one process's work
    folders = [workdir, *map(Path, config.evaluate.pool)]
    sets = {name: _pooled(folders, name) for name in build.variant_names(config)}
    reference, held_out = _real(config)
    results = {}
    for name, clips in tqdm({REAL: held_out, **sets}.items(), unit="set", leave=False):
        results[name] = measure(config, clips, reference)
    protocol = {"config": json.loads(config.to_json_best_effort())}
    rows = {name: [r.to_json() for r in row] for name, row in results.items()}
    write_bytes(workdir / "metrics.json", json.dumps({**protocol, "rows": rows}, indent=1).encode())
    note = timing_note(workdir)
    write_bytes(workdir / "metrics.md", f"{markdown(results)}\n{note}\n".encode())
    header, body = _cells(results)
    table = GalleryTable(
        caption=f"Measures with 95 % intervals. {note}".strip(),
        header=tuple(header),
        rows=tuple(tuple(row) for row in body),
    )
    page = write_page(config, workdir, table)
    Console(width=max(100, 28 * len(results) + 30)).print(terminal(results, note))
    if config.evaluate.levels and any(build.is_guided(config, name) for name in sets):
        write_levels(config, workdir)
    print(f"look and listen: open {page} in a browser")


def _pooled(folders: list[Path], variant: str) -> Batch:
    """One variant's clips of several workdirs, such as other sampling seeds, one after another."""
    sets = [read_all(folder / variant) for folder in folders]
    return {key: np.concatenate([clips[key] for clips in sets]) for key in ("video", "audio")}


def measure(config: Config, clips: Batch, reference: Batch) -> tuple[Result, ...]:
    """All measures of the config on one set of clips."""
    context = Context(
        fps=config.clip.fps,
        sample_rate_hz=config.clip.sample_rate_hz,
        reference=reference,
        replicates=config.evaluate.replicates,
        seed=config.evaluate.seed,
    )
    out: list[Result] = []
    for name in config.evaluate.metrics:
        metric = METRICS.get(name)(context)
        out += metric.compute(metric.update(metric.init(), clips))
    return tuple(out)


def _real(config: Config) -> tuple[Batch, Batch]:
    """Two halves of the real test clips: what sets are compared with, and a set to compare."""
    source = build.fixed_clips(config, "test")
    count = min(config.evaluate.num_real, len(source))
    clips = [source[i] for i in range(count)]
    both = {key: np.stack([np.asarray(clip[key]) for clip in clips]) for key in ("video", "audio")}
    half = count // 2
    return {k: v[:half] for k, v in both.items()}, {k: v[half:] for k, v in both.items()}


def _cells(results: dict[str, tuple[Result, ...]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: a measure a row, a set a column."""
    table: dict[str, dict[str, Any]] = {}
    for name, row in results.items():
        for result in row:
            cell = f"{result.value:.3f} [{result.low:.3f}, {result.high:.3f}]"
            table.setdefault(f"{result.name}", {})[name] = cell
    header = ["measure", *(f"{name} (n={row[0].n})" for name, row in results.items())]
    return header, [[key, *(cells.get(n, "") for n in results)] for key, cells in table.items()]


def terminal(results: dict[str, tuple[Result, ...]], note: str = "") -> Table:
    header, rows = _cells(results)
    table = Table(title="value [95 % interval]", caption=note)
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def markdown(results: dict[str, tuple[Result, ...]]) -> str:
    header, rows = _cells(results)
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
