# SPDX-License-Identifier: Apache-2.0
"""Training metrics as JSON lines and for TensorBoard, one entry per window of steps.

A line holds:
  step: the last step of the window.
  seconds: training time up to that step.
  data_wait_share: share of the window's time in which the host waited for batches; the device may
    have been busy meanwhile.
  loss_trace: the loss of every step.
  every other key: the mean of that metric over the window.
When a run resumes from a step, later lines are dropped, so no step is in the file twice.
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
    """Writer of the metrics of steps after `step`; a context manager.

    Only the first process writes.
    """

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
        """Writes one window of steps; the line is on disk when this returns.

        Args:
          step: the last step of the window.
          window: the metrics of each step.
          waited_seconds: time in which the host waited for the window's batches.
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
    """Reads the metrics file of a run; [] if there is none. A torn last line is ignored.

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
    """Returns the loss of every step, in order."""
    return [loss for row in rows for loss in row["loss_trace"]]


def _rewrite(path: Path, rows: list[Row]) -> None:
    write_bytes(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def _means(window: list[dict[str, np.ndarray]]) -> dict[str, float]:
    """Mean of each metric over the steps where it is not nan; dropped if it is nan in all.

    Metrics by noise level are nan in steps whose batch had no example of that level.
    """
    means = {}
    for name in window[0]:
        values = np.array([metrics[name] for metrics in window], np.float64)
        known = values[~np.isnan(values)]
        if len(known):
            means[name] = float(known.mean())
    return {name: value for name, value in means.items() if math.isfinite(value)}
