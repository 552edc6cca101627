# SPDX-License-Identifier: Apache-2.0
"""`prepare`: writes the config's dataset, once; and, if asked, its latents and fakes."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmdisco_jax.export.preflight_page import PreflightFile, preflight_html
from mmdisco_jax.io import write_bytes
from mmdisco_jax.locks import one_owner
from mmdisco_jax.media.inspection import PROBLEMS, problems_of
from mmdisco_jax.media.policies import ACTIONS, counts
from mmdisco_jax.media.preflight import Row
from mmdisco_jax.media.prepare import REPORT_FILE, prepare, reports
from mmdisco_jax.processes import wait
from mmdisco_jax.provenance import announce
from mmdisco_jax.system import System
from mmdisco_jax.tasks.fakes import write_fakes
from mmdisco_jax.tasks.latents import write_latents
from mmdisco_jax.tasks.records import base_entries


@one_owner
def run(system: System, workdir: Path) -> None:
    """Prints a summary as JSON. `workdir` receives generated fakes, and the report on media files.

    The report (preflight.json, preflight.html) is written before a file that the options do not
    allow stops the run, and again when all files are cut. If they were cut before, it is written as
    it was then. One process writes the dataset, with workers of its own; all share the latents and
    the fakes among them.
    """
    data, fakes = system.experiment.data, system.experiment.fakes
    require_agreement(system, data.options)
    if data.latents or fakes.num_samples:
        system.require_files()
        announce({"weights": base_entries(system)})
    summary = {}
    if not jax.process_index():
        summary = prepare(
            data.name,
            data.folder,
            num_workers=data.prepare_workers,
            show=lambda rows: _show(rows, data.name, workdir),
            **data.options,
        )
    wait("the dataset is written")
    require_agreement(system, system.source("train").metadata)
    if data.latents:
        summary["latents"] = write_latents(system)
    if fakes.num_samples:
        summary["fakes"] = write_fakes(system, workdir)
    wait("latents and fakes are written")
    if not jax.process_index():
        print(json.dumps(summary, indent=2))


def require_agreement(system: System, records: Mapping[str, Any]) -> None:
    """Refuses records (options or metadata) from which the clips of `config.clip` cannot be made.

    Raises:
      ValueError: records that are shorter, or have other rates or pictures of another size.
    """
    clip = system.experiment.clip
    wanted: dict[str, Any] = {"fps": clip.fps, "sample_rate_hz": clip.sample_rate_hz}
    if system.experiment.super_resolution is None:  # it enlarges the pictures of small clips
        wanted |= {"height": clip.height, "width": clip.width}
    wrong = [
        f"config.clip.{name} is {value}, but records have {records[name]}"
        for name, value in wanted.items()
        if records.get(name, value) != value
    ]
    if records.get("clip_seconds", clip.seconds) < clip.seconds - 1e-9:
        wrong.append(
            f"config.clip.seconds is {clip.seconds:g}, but records have {records['clip_seconds']:g}"
        )
    if wrong:
        raise ValueError(
            f"{'; '.join(wrong)}: set both, config.clip and config.data.options, or the arguments "
            "of the config (such as folder:seconds=10,size=64), which set all that must agree."
        )


def _show(rows: Sequence[Row], dataset: str, workdir: Path) -> None:
    """The report as a table on the terminal, as JSON and as a page with thumbnails."""
    found = counts([row.inspection for row in rows])
    console = Console(markup=False)  # file names are no markup
    console.print(_table(rows, found))
    problems = {name for row in rows for name in problems_of(row.inspection)}
    for problem in filter(problems.__contains__, PROBLEMS):
        option, choices = f"on_{problem}", "|".join(ACTIONS[f"on_{problem}"])
        console.print(f"to choose: --config.data.options.{option}={choices}", soft_wrap=True)
    for change, number in Counter(row.inspection.changes for row in rows).items():
        if change:
            console.print(f"{number} files for display: {change}", soft_wrap=True)
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
        mine = [r for r in rows if (r.inspection.problem or "fine") == problem]
        if number:
            done = ", ".join(sorted({row.action for row in mine}))
            _add_row(table, problem, mine, done, cut, mine[0].inspection.reason)
        also = [r for r in rows if problem in r.inspection.others]
        if also:
            done = ", ".join(sorted({row.other_actions.get(problem, "") for row in also}))
            _add_row(table, f"also {problem}", also, done, cut, also[0].inspection.others[problem])
    return table


def _add_row(
    table: Table, what: str, rows: Sequence[Row], done: str, cut: bool, reason: str
) -> None:
    clips = str(sum(row.num_clips for row in rows)) if cut else "?"
    example = f"{rows[0].entry.name}: {reason}" if reason else rows[0].entry.name
    # As `Text`, because a table reads a plain string as markup: "[...]" in a name would vanish.
    cells = (what.replace("_", " "), str(len(rows)), done, clips, example[:200])
    table.add_row(*map(Text, cells))


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
    facts += [found.changes] if found.changes else []
    for name, reason in found.others.items():
        facts.append(f"{name.replace('_', ' ')} ({row.other_actions.get(name, '')}): {reason}")
    return PreflightFile(
        name=row.entry.name,
        problem=found.problem,
        reason=found.reason,
        action=row.action,
        num_clips=row.num_clips,
        facts=tuple(facts),
        thumbnail=found.thumbnail,
    )
