# SPDX-License-Identifier: Apache-2.0
"""Evaluation of the discriminator itself, noise level by noise level."""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mmdisco_jax.discriminator.levels import measure_levels
from mmdisco_jax.guidance.joint import residual
from mmdisco_jax.io import write_bytes
from mmdisco_jax.system import System

_BATCH = 32


def write_levels(system: System, workdir: Path) -> None:
    """Writes workdir/levels.json and levels.md, and prints the table."""
    rows = _measure(system)
    header = list(rows[0])
    body = [[f"{row['t']:.0f}", *(f"{row[k]:.3f}" for k in header[1:])] for row in rows]
    lines = [header, ["---:"] * len(header), *body]
    text = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    write_bytes(workdir / "levels.json", json.dumps(rows, indent=1).encode())
    write_bytes(workdir / "levels.md", text.encode())
    table = Table(*header, title=f"the discriminator on {_count(system)} held-out pairs")
    for line in body:
        table.add_row(*line)
    Console(width=max(100, 16 * len(header))).print(table)


def _count(system: System) -> int:
    return system.experiment.evaluate.level_pairs // _BATCH * _BATCH


def _measure(system: System) -> list[dict[str, float]]:
    settings = system.experiment.evaluate
    guided = system.experiment.variant(system.experiment.variant_names[-1])
    params = system.discriminator_params(
        guided.discriminator_weights, force_schedule=guided.force_schedule
    )
    clips, count = system.clips("test"), _count(system)
    if len(clips) < count or not count:
        raise ValueError(
            f"evaluate.level_pairs={settings.level_pairs} needs at least {_BATCH} pairs and no "
            f"more than the {len(clips)} test clips: change it, or set evaluate.levels=()."
        )
    return measure_levels(
        system.log_ratio_of(params),
        system.denoise,
        lambda h: residual(h, system.schedules),
        system.schedules,
        system.encode(clips[:count]),
        settings.levels,
        seed=settings.seed,
        batch_size=_BATCH,
    )
