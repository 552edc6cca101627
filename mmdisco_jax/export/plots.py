# SPDX-License-Identifier: Apache-2.0
"""Film strip and spectrogram of a clip as PNG, edge to edge, so that time is the width."""

import os

import matplotlib
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmdisco_jax.export.media import write_png
from mmdisco_jax.export.spectrogram import FLOOR_DB, log_mel_db

_COLOUR_MAP = "magma"


def film_strip(video: ArrayLike) -> NDArray[np.uint8]:
    """Frames of a video uint8 `[f h w 3]` side by side: `[h, f * w, 3]`.

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
    """Writes the log-mel spectrogram of a mono `[samples]` waveform, float or int16, as PNG.

    The width is the clip's duration and nothing else: no axes, no margins, no marks. The gallery
    draws marks and playhead over it.
    """
    level = 1.0 - log_mel_db(waveform, sample_rate_hz, num_columns=1000)[::-1] / FLOOR_DB
    pixels = matplotlib.colormaps[_COLOUR_MAP](level, bytes=True)[..., :3]
    write_png(path, np.repeat(pixels, 3, axis=0))
