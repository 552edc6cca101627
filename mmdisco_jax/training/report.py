# SPDX-License-Identifier: Apache-2.0
"""Training report as one PNG: losses over steps, metrics by noise level, calibration."""

import io
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmdisco_jax.io import write_bytes

Rows = Sequence[dict[str, Any]]
# Binned by the predicted probability of "real"; the value is the share that was real.
CALIBRATION = "real_share"
_NOT_PLOTTED = ("step", "seconds", "loss_trace")
_LAST = 0.2  # values by bin are averaged over this last share of the training


def write_report(path: str | os.PathLike[str], rows: Rows, *, title: str) -> None:
    """Draws the rows of `metrics.jsonl` as a PNG.

    A metric `name/<bin>` is averaged over the last fifth of the run and drawn over its bins;
    `real_share/<bin>` becomes a reliability curve. All others are drawn over the steps. Metrics
    whose names differ only after the last "_", where the modality stands, share a panel.

    Raises:
      ValueError: there are no rows.
      WriteError: the file cannot be written.
    """
    if not rows:
        raise ValueError(f"there are no metrics to draw in {path}: the run has not logged a step.")
    panels = _panels(rows)
    columns = min(3, len(panels))
    lines = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(4.4 * columns, 3.2 * lines), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, draw) in zip(
        figure.subplots(lines, columns, squeeze=False).flat, panels.items(), strict=False
    ):
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
        draw(axes)
    for axes in figure.axes[len(panels) :]:
        axes.set_axis_off()
    minutes = rows[-1]["seconds"] / 60
    figure.suptitle(f"{title}: {rows[-1]['step']} steps in {minutes:.1f} minutes", fontsize=11)
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png")
    write_bytes(path, encoded.getvalue())


def by_bin(rows: Rows) -> dict[str, dict[int, float]]:
    """Averages the metrics `name/<bin>` over the last fifth of the rows: {name: {bin: mean}}."""
    late = rows[-max(1, round(len(rows) * _LAST)) :]
    values: dict[str, dict[int, list[float]]] = {}
    for row in late:
        for key, value in row.items():
            name, _, number = key.rpartition("/")
            if name and number.isdigit() and math.isfinite(value):
                values.setdefault(name, {}).setdefault(int(number), []).append(value)
    return {
        name: {i: float(np.mean(bins[i])) for i in sorted(bins)} for name, bins in values.items()
    }


def _panels(rows: Rows) -> dict[str, Callable[[Axes], None]]:
    names = {key for row in rows for key in row if "/" not in key and key not in _NOT_PLOTTED}
    stems = [name.rpartition("_")[0] for name in names]
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        stem = name.rpartition("_")[0]
        groups.setdefault(stem if stems.count(stem) > 1 and stem else name, []).append(name)
    panels: dict[str, Callable[[Axes], None]] = {}
    for group, members in sorted(groups.items(), key=lambda item: (item[0] != "loss", item[0])):
        panels[group] = lambda axes, members=members: _over_steps(axes, rows, members)
    for name, bins in by_bin(rows).items():
        if name == CALIBRATION:
            panels["calibration"] = lambda axes, bins=bins: _calibration(axes, bins)
        else:
            panels[f"{name} by noise level"] = lambda axes, bins=bins: _by_level(axes, bins)
    return panels


def _over_steps(axes: Axes, rows: Rows, names: list[str]) -> None:
    for name in names:
        some = [(row["step"], row[name]) for row in rows if name in row]
        axes.plot(*zip(*some, strict=True), linewidth=1.2, label=name)
    if len(names) > 1:
        axes.legend(fontsize=7, frameon=False)
    values = np.array([row[name] for row in rows for name in names if name in row])
    if (values > 0).all() and values.max() > 10 * values.min():
        axes.set_yscale("log")
    axes.set_xlabel("step", fontsize=8)


def _by_level(axes: Axes, bins: dict[int, float]) -> None:
    axes.plot(list(bins), list(bins.values()), marker="o", markersize=3, linewidth=1.2)
    axes.set_xlabel("noise level, bin (0 is clean)", fontsize=8)
    values = np.array(list(bins.values()))
    if (values > 0).all() and values.max() > 10 * values.min():
        axes.set_yscale("log")


def _calibration(axes: Axes, bins: dict[int, float]) -> None:
    width = 1 / (max(9, *bins) + 1)
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, label="ideal")
    centres = [(i + 0.5) * width for i in bins]
    axes.plot(centres, list(bins.values()), marker="o", markersize=3, linewidth=1.2)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_xlabel("predicted probability of a real pair", fontsize=8)
    axes.set_ylabel("share of real pairs", fontsize=8)
    axes.legend(fontsize=7, frameon=False)
