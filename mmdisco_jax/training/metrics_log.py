# SPDX-License-Identifier: Apache-2.0
"""Metrics of a run: one JSON line per window of steps, and the same numbers for TensorBoard.

A line holds the window's last `step`, `seconds` of training up to there, `data_wait_share` (of the
window's time, that in which the host waited for batches, while the device may have been busy), the
mean of each metric over the window, and `loss_trace`, the loss of every single step. Lines beyond
the step that a run resumes from are dropped, so the file never holds a step twice.
"""

import json
import math
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
from tensorboardX import SummaryWriter

from mmdisco_jax.io import write_bytes

FILE = "metrics.jsonl"
Row = dict[str, Any]


class MetricsLog:
    """Writes metrics of steps after `step`; a context manager. Only the first process writes."""

    def __init__(self, workdir: Path, step: int):
        self._writes = jax.process_index() == 0
        self._before = 0.0
        self._path = workdir / FILE
        if self._writes:
            workdir.mkdir(parents=True, exist_ok=True)
            rows = [row for row in read_metrics(workdir) if row["step"] <= step]
            self._before = rows[-1]["seconds"] if rows else 0.0
            _rewrite(self._path, rows)
            self._board = SummaryWriter(str(workdir), purge_step=step + 1)
        self._start = self._last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writes:
            self._board.close()

    def write(
        self, step: int, window: list[dict[str, np.ndarray]], waited_seconds: float = 0.0
    ) -> None:
        """The metrics of the steps up to `step`, one dict each; on disk when this returns.

        `waited_seconds`: how long the host waited for the window's batches.
        """
        if not self._writes:
            return
        means = _means(window)
        for name, value in means.items():
            self._board.add_scalar(name, value, step)
        now = time.monotonic()
        share = round(waited_seconds / max(now - self._last, 1e-9), 4)
        self._last = now
        self._board.add_scalar("data_wait_share", share, step)
        seconds = round(self._before + now - self._start, 3)
        losses = [float(metrics["loss"]) for metrics in window]
        row = {"step": step, "seconds": seconds, "data_wait_share": share}
        row |= {**means, "loss_trace": losses}
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())  # a checkpoint must not outlive the lines before it


def read_metrics(workdir: Path) -> list[Row]:
    """The lines of a run's metrics file, [] if there is none; a torn last line is left out.

    Raises:
      ValueError: a line in the middle is not JSON.
    """
    path = workdir / FILE
    lines = path.read_text().splitlines() if path.exists() else []
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ValueError(
                    f"line {number} of {path} is not JSON ({error}); delete that line."
                ) from error
    return rows


def loss_trace(rows: list[Row]) -> list[float]:
    """The loss of every step, in order."""
    return [loss for row in rows for loss in row["loss_trace"]]


def _rewrite(path: Path, rows: list[Row]) -> None:
    write_bytes(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def _means(window: list[dict[str, np.ndarray]]) -> dict[str, float]:
    """Mean of each metric over the steps that have it; one that no step has is left out.

    A bin of noise levels that a batch did not meet is nan, and so absent there.
    """
    means = {}
    for name in window[0]:
        values = np.array([metrics[name] for metrics in window], np.float64)
        known = values[~np.isnan(values)]
        if len(known):
            means[name] = float(known.mean())
    return {name: value for name, value in means.items() if math.isfinite(value)}
