# SPDX-License-Identifier: Apache-2.0
"""`prepare`: writes the config's dataset, once; and, if asked, its latents and fakes."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mmdisco_jax.export.preflight_page import PreflightFile, preflight_html
from mmdisco_jax.io import write_bytes
from mmdisco_jax.media.inspection import PROBLEMS
from mmdisco_jax.media.policies import ACTIONS, counts
from mmdisco_jax.media.preflight import Row
from mmdisco_jax.media.prepare import REPORT_FILE, prepare, reports
from mmdisco_jax.system import System
from mmdisco_jax.tasks.fakes import write_fakes
from mmdisco_jax.tasks.latents import write_latents


def run(system: System, workdir: Path) -> None:
    """Prints a summary as JSON. `workdir` receives generated fakes, and the report on media files.

    The report (preflight.json, preflight.html) is written before a file that the options do not
    allow stops the run, and again when all files are cut.
    """
    data, fakes = system.experiment.data, system.experiment.fakes
    if data.latents or fakes.num_samples:
        system.require_files()
    summary = prepare(
        data.name,
        data.folder,
        num_workers=data.prepare_workers,
        show=lambda rows: _show(rows, data.name, workdir),
        **data.options,
    )
    if data.latents:
        summary["latents"] = write_latents(system)
    if fakes.num_samples:
        summary["fakes"] = write_fakes(system, workdir)
    print(json.dumps(summary, indent=2))


def _show(rows: Sequence[Row], dataset: str, workdir: Path) -> None:
    """The report as a table on the terminal, as JSON and as a page with thumbnails."""
    found = counts([row.inspection for row in rows])
    console = Console()
    console.print(_table(rows, found))
    for problem, number in found.items():
        if number and problem in PROBLEMS:
            option, choices = f"on_{problem}", "|".join(ACTIONS[f"on_{problem}"])
            console.print(f"to choose: --config.data.options.{option}={choices}", soft_wrap=True)
    report = reports(rows)[REPORT_FILE]
    write_bytes(workdir / REPORT_FILE, json.dumps(report, indent=1, ensure_ascii=False).encode())
    title = f"{len(rows)} inputs of {dataset}"
    meanings = {"fine": "can be used as they are", **PROBLEMS}
    page = workdir / Path(REPORT_FILE).with_suffix(".html")
    files = [_file(row) for row in rows]
    write_bytes(page, preflight_html(title, found, meanings, files).encode())
    console.print(f"every file, with its picture: {page}", soft_wrap=True)


def _table(rows: Sequence[Row], found: dict[str, int]) -> Table:
    cut = any(row.num_clips for row in rows)
    table = Table(title=f"{len(rows)} inputs, {'cut' if cut else 'inspected'}")
    for name in ("what", "files", "to do" if not cut else "done", "clips", "for example"):
        table.add_column(name, justify="right" if name in ("files", "clips") else "left")
    for problem, number in found.items():
        if not number:
            continue
        mine = [r for r in rows if (r.inspection.problem or "fine") == problem]
        done = ", ".join(sorted({row.action for row in mine}))
        clips = str(sum(row.num_clips for row in mine)) if cut else "?"
        example = mine[0].entry.name
        if mine[0].inspection.reason:
            example += f": {mine[0].inspection.reason}"
        table.add_row(problem.replace("_", " "), str(number), done, clips, example[:160])
    return table


def _file(row: Row) -> PreflightFile:
    found = row.inspection
    facts = [f"{found.num_bytes / 1e6:.1f} MB"]
    if found.duration_seconds:
        facts.append(f"{found.duration_seconds:.1f} s")
    if found.width:
        rate = f"{found.fps:.3g}{' (variable)' if found.variable_rate else ''} Hz"
        facts.append(f"{found.width} x {found.height} at {rate}, {found.video_codec}")
    if found.sample_rate_hz:
        facts.append(f"{found.channels} x {found.sample_rate_hz} Hz, {found.audio_codec}")
    return PreflightFile(
        name=row.entry.name,
        problem=found.problem,
        reason=found.reason,
        action=row.action,
        num_clips=row.num_clips,
        facts=tuple(facts),
        thumbnail=found.thumbnail,
    )
