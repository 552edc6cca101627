# SPDX-License-Identifier: Apache-2.0
"""Log-mel spectrogram for display (models have their own in `codecs`)."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from mmdisco_jax.export.media import checked_waveform

FLOOR_DB = -70.0  # below the loudest point; quieter is drawn as silence
_WINDOW_SECONDS = 0.032  # short, so that an onset looks like an edge


def log_mel_db(
    waveform: ArrayLike, sample_rate_hz: int, *, num_columns: int = 500, num_mels: int = 80
) -> NDArray[np.float32]:
    """Mel power in dB of a mono waveform `[samples]`: float32 `[num_mels, num_columns]`.

    Row 0 is the lowest frequency. Column j looks at the sound around (j + 1/2) / num_columns of
    the clip, so the columns divide its duration evenly. 0 dB is the loudest point; values end at
    `FLOOR_DB`, and silence is `FLOOR_DB` throughout. Mel scale: 2595 log10(1 + f / 700).

    Raises:
      ValueError: the waveform is not int16 or float `[samples]`, is empty, or not in [-1, 1].
    """
    samples = checked_waveform(waveform)
    size = 2 * max(round(_WINDOW_SECONDS * sample_rate_hz / 2), 8)
    centres = (np.arange(num_columns) + 0.5) * len(samples) / num_columns
    padded = np.pad(samples, size // 2)
    pieces = sliding_window_view(padded, size)[centres.astype(int)]
    power = np.abs(np.fft.rfft(pieces * np.hanning(size), n=4 * size)) ** 2
    mel = _triangles(num_mels, 2 * size + 1, sample_rate_hz) @ power.T
    peak = mel.max()
    if peak < 1e-9:  # silence, not noise to be blown up to full scale
        return np.full(mel.shape, FLOOR_DB, np.float32)
    return np.maximum(10 * np.log10(np.maximum(mel / peak, 1e-12)), FLOOR_DB).astype(np.float32)


def _triangles(num_mels: int, num_bins: int, sample_rate_hz: int) -> NDArray[np.float64]:
    """Triangular mel filters `[num_mels, num_bins]` between 0 Hz and half the sample rate."""
    nyquist = sample_rate_hz / 2
    top_mel = 2595 * np.log10(1 + nyquist / 700)
    edges = 700 * (10 ** (np.linspace(0, top_mel, num_mels + 2) / 2595) - 1)
    bins = np.linspace(0, nyquist, num_bins)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rise, fall = (bins - low) / (centre - low), (high - bins) / (high - centre)
    return np.maximum(0, np.minimum(rise, fall))
