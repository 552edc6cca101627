# SPDX-License-Identifier: Apache-2.0
"""Weight-free features of clips: pixels and log-mel on principal axes of real clips.

A distance on them compares runs on one dataset. It is **not** FVD or FAD, whose features come from
networks trained on other data, and its numbers mean nothing beside theirs.
"""

import dataclasses

import librosa
import numpy as np

from mmdisco_jax.io import from_int16, from_uint8
from mmdisco_jax.metrics import api

DIMENSIONS = 24
VIDEO_EDGE = 32  # larger frames are first averaged down to this many pixels a side
MEL_BINS, FFT_SIZE, HOP_SECONDS = 32, 1024, 1 / 32
MEL_FLOOR = 1e-4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Projection:
    """Principal axes of one modality's real clips: mean [d], axes [k, d] (orthonormal rows)."""

    mean: np.ndarray
    axes: np.ndarray

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Rows [n, d] -> features float64 [n, k], in the rows' own units."""
        if rows.ndim != 2 or rows.shape[1] != len(self.mean):
            raise ValueError(
                f"rows have shape {rows.shape}, the axes were fitted on [n, {len(self.mean)}]: "
                "clips of another length or size cannot be compared"
            )
        return (rows - self.mean) @ self.axes.T


def fit(rows: np.ndarray, dimensions: int = DIMENSIONS) -> Projection:
    """Fits principal axes to real clips' rows [n, d]; n and d must exceed `dimensions`."""
    if min(rows.shape) <= dimensions:
        raise ValueError(
            f"rows of shape {rows.shape} do not span {dimensions} axes: "
            f"give more than {dimensions} reference clips"
        )
    rows = np.asarray(rows, np.float64)
    mean = rows.mean(0)
    axes = np.linalg.svd(rows - mean, full_matrices=False)[2][:dimensions]
    return Projection(mean=mean, axes=axes)


def video_rows(video: np.ndarray) -> np.ndarray:
    """Pixels in [-1, 1] of videos uint8 [b, f, h, w, 3], float64 [b, f * h' * w' * 3].

    Frames larger than 32 pixels a side are averaged over whole blocks first.
    """
    b, f, h, w, c = video.shape
    block = max(1, min(h, w) // VIDEO_EDGE)
    high, wide = h // block, w // block
    cut = video[:, :, : high * block, : wide * block].reshape(b, f, high, block, wide, block, c)
    return from_uint8(cut.mean((3, 5)), np.float64).reshape(b, -1)


def audio_rows(audio: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """log10 mel magnitude of sounds int16 [b, samples], float64 [b, frames * 32].

    32 mel bands, 64 ms windows every 31 ms, floor 1e-4 (below what 16 bits resolve).
    """
    size = round(FFT_SIZE * sample_rate_hz / 16_000)
    mel = librosa.feature.melspectrogram(
        y=from_int16(audio),
        sr=sample_rate_hz,
        n_fft=size,
        hop_length=round(HOP_SECONDS * sample_rate_hz),
        n_mels=MEL_BINS,
        power=1.0,
    )
    return np.log10(np.maximum(mel, MEL_FLOOR)).astype(np.float64).reshape(len(audio), -1)


def rows_of(batch: api.Batch, modality: str, sample_rate_hz: int) -> np.ndarray:
    """`video_rows` or `audio_rows` of a raw batch."""
    video, audio = api.clips_of(batch)
    return video_rows(video) if modality == "video" else audio_rows(audio, sample_rate_hz)
