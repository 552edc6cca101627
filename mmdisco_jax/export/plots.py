# SPDX-License-Identifier: Apache-2.0
"""Pictures of a clip: the bare strips of the gallery, and one labelled figure that stands alone."""

import io
import os
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from mmdisco_jax.export.media import write_png
from mmdisco_jax.export.spectrogram import FLOOR_DB, log_mel_db
from mmdisco_jax.io import write_bytes

_COLOUR_MAP = "magma"


def film_strip(video: ArrayLike) -> NDArray[np.uint8]:
    """The frames of a video uint8 `[f h w 3]` side by side: `[h, f * w, 3]`.

    Frame i fills the part i/f .. (i+1)/f of the width: the strip is a time axis as the
    spectrogram is.
    """
    frames = np.asarray(video)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(
            f"video has dtype {frames.dtype} and shape {frames.shape}, but must be uint8 [f h w 3]."
        )
    return np.concatenate(list(frames), axis=1)


def write_film_strip(path: str | os.PathLike[str], video: ArrayLike) -> None:
    """Writes `film_strip(video)` as a PNG of its own pixels; errors as `write_png`."""
    write_png(path, film_strip(video))


def write_spectrogram(
    path: str | os.PathLike[str], waveform: ArrayLike, *, sample_rate_hz: int
) -> None:
    """Writes the bare log-mel spectrogram of a mono `[samples]` waveform, edge to edge, as PNG.

    The width is the clip's duration and nothing else: no axes, no margins, no marks. The gallery
    draws marks and playhead over it.
    """
    level = 1.0 - log_mel_db(waveform, sample_rate_hz, num_columns=1000)[::-1] / FLOOR_DB
    pixels = matplotlib.colormaps[_COLOUR_MAP](level, bytes=True)[..., :3]
    write_png(path, np.repeat(pixels, 3, axis=0))


def write_clip_figure(
    path: str | os.PathLike[str],
    waveform: ArrayLike,
    *,
    sample_rate_hz: int,
    impact_seconds: Sequence[float] = (),
    onset_seconds: Sequence[float] = (),
    impact_colour: str = "#ffffff",
    video: ArrayLike | None = None,
    title: str = "",
) -> None:
    """Writes one labelled figure: film strip, spectrogram, and marks of what is seen and heard.

    Impacts are solid lines with a triangle above the spectrogram, onsets dashed lines with one
    below it. 1125 pixels wide, so that it is crisp across a phone of 375 points at 3x.

    Args:
      path: the PNG to write, atomically.
      waveform: float `[samples]` mono in [-1, 1].
      sample_rate_hz: samples per second.
      impact_seconds: times at which the picture shows an impact.
      onset_seconds: times at which a sound begins.
      impact_colour: colour of the impact marks, as matplotlib reads it: that of the ball.
      video: uint8 `[f h w 3]` as long as the waveform, or None for no film strip.
      title: text above the figure.
    """
    level = log_mel_db(waveform, sample_rate_hz)
    clip_seconds = np.asarray(waveform).size / sample_rate_hz
    figure = Figure(figsize=(3.75, 2.2 if video is None else 2.55), dpi=300, layout="constrained")
    FigureCanvasAgg(figure)
    if video is None:
        axes = figure.subplots()
    else:
        strip = film_strip(video)
        film, axes = figure.subplots(2, 1, height_ratios=(1, 6))
        film.imshow(strip, extent=(0, clip_seconds, 0, 1), aspect="auto", interpolation="nearest")
        film.set_axis_off()
    axes.imshow(
        level,
        extent=(0, clip_seconds, 0, 1),
        origin="lower",
        aspect="auto",
        cmap=_COLOUR_MAP,
        vmin=FLOOR_DB,
        vmax=0,
    )
    _mark(axes, impact_seconds, style="-", marker="v", y=1.05, colour=impact_colour, label="seen")
    _mark(axes, onset_seconds, style="--", marker="^", y=-0.05, colour="#7fe3ff", label="heard")
    _mel_ticks(axes, sample_rate_hz)
    axes.set(xlim=(0, clip_seconds), ylim=(0, 1))
    axes.set_xlabel("time (s)", fontsize=7, labelpad=6)
    axes.tick_params(labelsize=6)
    axes.tick_params(axis="x", pad=8)
    figure.suptitle(title, fontsize=8)
    if len(impact_seconds) or len(onset_seconds):
        figure.legend(loc="outside lower center", ncols=2, fontsize=6, frameon=False)
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png")
    write_bytes(path, encoded.getvalue())


def _mark(
    axes: Axes,
    seconds: Sequence[float],
    *,
    style: str,
    marker: str,
    y: float,
    colour: str,
    label: str,
) -> None:
    """Vertical lines with a triangle at their outer end, `y` in heights of the spectrogram."""
    if len(seconds) == 0:
        return
    axes.vlines(seconds, 0, 1, colors=colour, linestyle=style, linewidth=0.9)
    axes.plot(
        seconds,
        [y] * len(seconds),
        marker=marker,
        linestyle="none",
        markersize=5,
        color=colour,
        markeredgecolor="black",
        markeredgewidth=0.5,
        clip_on=False,
        label=label,
    )


def _mel_ticks(axes: Axes, sample_rate_hz: int) -> None:
    """Frequencies at their height on the mel axis."""
    nyquist = sample_rate_hz / 2
    hertz = np.array([f for f in (0, 500, 1000, 2000, 4000, 8000, 16000) if f <= nyquist])
    heights = np.log1p(hertz / 700) / np.log1p(nyquist / 700)
    axes.set_yticks(heights, [f"{f / 1000:g}" for f in hertz])
    axes.set_ylabel("kHz (mel scale)", fontsize=7)
