# SPDX-License-Identifier: Apache-2.0
"""Float samples of a model -> the integers a media file holds (uint8 pixels, int16 sound)."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

# A sampler may overshoot [-1, 1] a little, and that is clipped. Beyond this the array is something
# else, such as pixels in 0..255 or int16 sound cast to float, and clipping would hide the mistake.
MAX_OVERSHOOT = 8.0


def _signal(array: ArrayLike, *, name: str, ranks: dict[int, str]) -> NDArray[np.floating]:
    """`array` on the host, once its dtype, rank and values are found to be those of a signal."""
    values = np.asarray(array)
    if values.dtype.kind in "iub":
        raise ValueError(
            f"{name} has dtype {values.dtype}, but must be floating point in [-1, 1]; "
            "integer samples need no conversion."
        )
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float32)  # bfloat16 and float16: too coarse to round in
    if values.ndim not in ranks:
        raise ValueError(
            f"{name} has shape {values.shape}, but must be {' or '.join(ranks.values())}."
        )
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise ValueError(
            f"{name} holds {count} NaN or infinite values of {values.size}; the model or the "
            "sampler diverged: lower the guidance scale or check the weights."
        )
    peak = float(np.abs(values).max(initial=0.0))
    if peak > MAX_OVERSHOOT:
        raise ValueError(
            f"{name} reaches {peak:.4g}, but must lie in [-1, 1] (an overshoot up to "
            f"{MAX_OVERSHOOT:g} is clipped); scale it to [-1, 1] first."
        )
    return values


def video_to_uint8(video: ArrayLike) -> NDArray[np.uint8]:
    """Video `[f h w 3]` or `[b f h w 3]`, float in [-1, 1] -> uint8 of the same shape.

    -1 becomes 0 and 1 becomes 255, rounded to nearest; values outside [-1, 1] are clipped.

    Raises:
      ValueError: another dtype, rank or channel count, a NaN, or a value beyond `MAX_OVERSHOOT`.
    """
    values = _signal(video, name="video", ranks={4: "[f h w 3]", 5: "[b f h w 3]"})
    if values.shape[-1] != 3:
        raise ValueError(
            f"video has shape {values.shape}, but its last axis must hold the 3 RGB channels; "
            "decode latents and move channels last before exporting."
        )
    return np.rint((np.clip(values, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)


def waveform_to_int16(waveform: ArrayLike) -> NDArray[np.int16]:
    """Mono waveform `[samples]` or `[b samples]`, float in [-1, 1] -> int16 of the same shape.

    The scale is 32767 both ways, so that silence is 0 and the range symmetric; values outside
    [-1, 1] are clipped, never wrapped round.

    Raises:
      ValueError: another dtype or rank, a NaN, or a value beyond `MAX_OVERSHOOT`.
    """
    values = _signal(waveform, name="waveform", ranks={1: "[samples]", 2: "[b samples]"})
    return np.rint(np.clip(values, -1.0, 1.0) * 32767.0).astype(np.int16)


def checked_waveform(waveform: ArrayLike) -> NDArray[np.float32]:
    """One mono clip `[samples]` clipped to [-1, 1], float32; errors as `waveform_to_int16`."""
    values = _signal(waveform, name="waveform", ranks={1: "[samples]"})
    if values.size == 0:
        raise ValueError("waveform is empty; pass None for a video without sound.")
    return np.clip(values, -1.0, 1.0).astype(np.float32)
