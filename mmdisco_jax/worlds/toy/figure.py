# SPDX-License-Identifier: Apache-2.0
"""Figure of the toy experiments: a row per world and base, a column per way of sampling."""

import io
import os
from collections.abc import Mapping

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmdisco_jax.io import write_bytes

_HALF_WIDTH = 3.0  # of every panel, in the worlds' units


def write_toy_figure(
    path: str | os.PathLike[str],
    rows: Mapping[str, Mapping[str, np.ndarray]],
    values: Mapping[str, Mapping[str, float]],
) -> None:
    """Writes a PNG of point clouds, each with its energy distance.

    Args:
      path: the PNG to write, atomically.
      rows: row label -> column label -> points [n 2], first coordinate audio; columns agree.
      values: row label -> column label -> energy distance to the true joint.
    """
    columns = list(next(iter(rows.values())))
    figure = Figure(figsize=(1.5 * len(columns) + 0.4, 1.5 * len(rows) + 0.3), dpi=150)
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02)
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), len(columns), squeeze=False, sharex=True, sharey=True)
    for axes_row, (label, clouds) in zip(grid, rows.items(), strict=True):
        for axes, column in zip(axes_row, columns, strict=True):
            points = clouds[column]
            colour = "#444444" if column == columns[0] else "#1f5fa8"
            axes.scatter(points[:, 0], points[:, 1], s=1.5, alpha=0.35, linewidths=0, color=colour)
            limits = (-_HALF_WIDTH, _HALF_WIDTH)
            axes.set(xlim=limits, ylim=limits, xticks=(), yticks=(), aspect="equal")
            note = f"{values[label][column]:.3f}"
            axes.text(0.04, 0.9, note, fontsize=7, transform=axes.transAxes)
        axes_row[0].set_ylabel(label.replace(", ", "\n"), fontsize=8)
    for axes, column in zip(grid[0], columns, strict=True):
        axes.set_title(column, fontsize=8)
    figure.suptitle("numbers: energy distance to the true joint", fontsize=8)
    figure.supxlabel("audio", fontsize=8)
    figure.supylabel("video", fontsize=8)
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png")
    write_bytes(path, encoded.getvalue())
