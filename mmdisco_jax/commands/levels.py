# SPDX-License-Identifier: Apache-2.0
"""The part of `evaluate` that measures the discriminator itself, noise level by noise level."""

import json
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from mmdisco_jax import build
from mmdisco_jax.build import Config
from mmdisco_jax.discriminator.levels import measure_levels
from mmdisco_jax.guidance.joint import residual
from mmdisco_jax.io import write_bytes

_BATCH = 32


def write_levels(config: Config, workdir: Path) -> None:
    """Writes workdir/levels.json and levels.md, and prints the table."""
    rows = _measure(config)
    header = list(rows[0])
    body = [[f"{row['t']:.0f}", *(f"{row[k]:.3f}" for k in header[1:])] for row in rows]
    lines = [header, ["---:"] * len(header), *body]
    text = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    write_bytes(workdir / "levels.json", json.dumps(rows, indent=1).encode())
    write_bytes(workdir / "levels.md", text.encode())
    table = Table(*header, title=f"the discriminator on {_count(config)} held-out pairs")
    for line in body:
        table.add_row(*line)
    Console(width=max(100, 16 * len(header))).print(table)


def _count(config: Config) -> int:
    return config.evaluate.level_pairs // _BATCH * _BATCH


def _measure(config: Config) -> list[dict[str, float]]:
    graphs, params = build.bases(config)
    models = build.base_models(config, graphs, params)
    guided = next(v for v in build.variant_names(config)[::-1])
    disc_params = build.discriminator_params(config, guided)
    logit = build.log_ratio_fn(config, build.discriminator(config)[0], disc_params, models)
    source = build.fixed_clips(config, "test")
    if len(source) < _count(config) or not _count(config):
        raise ValueError(
            f"evaluate.level_pairs={config.evaluate.level_pairs} needs at least {_BATCH} pairs and "
            f"no more than the {len(source)} test clips: change it, or set evaluate.levels=()."
        )
    clips = [source[i] for i in range(_count(config))]
    codecs, schedules = build.codecs(config), build.schedules(config)
    x0 = {m: jax.jit(codecs[m].encode)(np.stack([c[m] for c in clips])) for m in codecs}
    return measure_levels(
        logit,
        build.denoise_fn(models),
        lambda h: residual(h, schedules),
        schedules,
        x0,
        config.evaluate.levels,
        seed=config.evaluate.seed,
        batch_size=_BATCH,
    )
