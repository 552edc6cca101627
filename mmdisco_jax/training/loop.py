# SPDX-License-Identifier: Apache-2.0
"""The training loop: batches in, state out, with logs and checkpoints on the way."""

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tensorboardX import SummaryWriter
from tqdm import tqdm

from mmdisco_jax.training.state import TrainState
from mmdisco_jax.types import Array, Params


class NotFiniteError(RuntimeError):
    """Training produced a value that is not finite; names the step and the metric."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopSpec:
    num_steps: int
    log_every: int
    save_every: int


def fit(
    state: TrainState,
    frozen: Params,
    batches: Iterator[Any],
    step: Any,
    key: Array,
    spec: LoopSpec,
    workdir: Path,
    save: Any,
) -> TrainState:
    """Runs `step` until `spec.num_steps`."""
    step = jax.jit(step, donate_argnums=0)
    workdir.mkdir(parents=True, exist_ok=True)
    first = int(state.step)
    pending: list[dict[str, Array]] = []
    with (
        SummaryWriter(str(workdir)) as board,
        open(workdir / "metrics.jsonl", "a") as log,
        tqdm(total=spec.num_steps, initial=first, unit="step", mininterval=5) as bar,
    ):
        start = time.time()
        for number in range(first + 1, spec.num_steps + 1):
            state, metrics = step(state, frozen, next(batches), key)
            pending.append(metrics)
            bar.update()
            if number % spec.log_every == 0 or number == spec.num_steps:
                row = _mean(jax.device_get(pending))
                pending = []
                bad = [k for k in ("loss", "grad_norm") if not np.isfinite(row[k])]
                if bad:
                    raise NotFiniteError(f"{bad[0]} is {row[bad[0]]} at step {number}.")
                for name, value in row.items():
                    board.add_scalar(name, value, number)
                seconds = time.time() - start
                log.write(json.dumps({"step": number, "seconds": seconds, **row}) + "\n")
                log.flush()
                bar.set_postfix(loss=f"{row['loss']:.4f}")
            if number % spec.save_every == 0 or number == spec.num_steps:
                save(state)
    return state


def _mean(rows: list[dict[str, np.ndarray]]) -> dict[str, float]:
    """Mean of each metric over the steps that have it (an empty noise-level bin is nan)."""
    out = {}
    for name in rows[0]:
        values = np.array([row[name] for row in rows], np.float64)
        known = values[~np.isnan(values)] if "/" in name else values
        out[name] = float(known.mean()) if len(known) else float("nan")
    return out
