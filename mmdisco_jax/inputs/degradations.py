# SPDX-License-Identifier: Apache-2.0
"""Training pairs for super-resolution: a sharp picture and a small, degraded copy of it.

The degradations are those of MM-Diffusion's released code.
"""

import dataclasses
from typing import Any

import cv2
import grain
import numpy as np

from mmdisco_jax.checks import require_at_least
from mmdisco_jax.inputs.transforms import Example
from mmdisco_jax.io import from_uint8
from mmdisco_jax.media.picture import centred


@dataclasses.dataclass(frozen=True, kw_only=True)
class DegradationSpec:
    """Settings of the degradations; the defaults are those of MM-Diffusion.

    Attributes:
      high_size, low_size: side lengths of the two square pictures, in pixels.
      noise_probability: chance of Gaussian noise, in [0, 1].
      max_noise: the noise's standard deviation is uniform in [0, max_noise], where white is 255.
      jpeg_probability: chance of JPEG artefacts, in [0, 1].
      jpeg_quality: the quality is uniform from the first number to the one before the second.

    Raises:
      ValueError: a value is out of its range.
    """

    high_size: int = 256
    low_size: int = 64
    noise_probability: float = 0.5
    max_noise: float = 20.0
    jpeg_probability: float = 0.5
    jpeg_quality: tuple[int, int] = (20, 80)

    def __post_init__(self):
        require_at_least(1, high_size=self.high_size, low_size=self.low_size)
        for name in ("noise_probability", "jpeg_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be in [0, 1].")
        if self.max_noise < 0:
            raise ValueError(f"max_noise is {self.max_noise}; it must not be negative.")
        low, high = self.jpeg_quality
        if not 1 <= low < high <= 101:
            raise ValueError(f"jpeg_quality {self.jpeg_quality} must rise within 1..101.")


OFFICIAL = DegradationSpec()


def degraded(
    frame: np.ndarray, rng: np.random.Generator, spec: DegradationSpec = OFFICIAL
) -> Example:
    """Makes a training pair from one frame.

    Args:
      frame: uint8 [h w 3], RGB.
      rng: source of all randomness.

    Returns:
      Float32 pictures with -1 for black and 1 for white:
      `high` [high_size high_size 3] is the whole frame, scaled by cubic interpolation and centred
      on black. `low` [low_size low_size 3] is `high`, shrunk and degraded. Noise without JPEG is
      not clipped, as in the official code, so `low` may leave [-1, 1].

    Raises:
      ValueError: the frame has another type or shape.
    """
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3 or 0 in frame.shape:
        raise ValueError(
            f"frame is {frame.dtype} {frame.shape}, but must be uint8 [height width 3] (RGB)."
        )
    high = letterboxed(frame, spec.high_size)
    # Not averaged before shrinking, because the released networks were trained with this aliasing.
    low = _cubic(high, spec.low_size, spec.low_size)
    if rng.random() < spec.noise_probability:
        sigma = rng.uniform(0, spec.max_noise)
        low = low + sigma * rng.standard_normal(low.shape)
    if rng.random() < spec.jpeg_probability:
        low = _jpeg(low, int(rng.integers(*spec.jpeg_quality)))
    return {"high": _signed(high), "low": _signed(low)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomPairs(grain.transforms.RandomMap):
    """Transform of a clip into training pairs of randomly chosen, distinct frames.

    The choice of frames and their degradations depend only on (seed, position in the stream), so a
    resumed run draws the same pairs. `frames_per_clip=1` draws frames independently, as the
    official code does; larger numbers share the cost of reading a clip.
    """

    spec: DegradationSpec = OFFICIAL
    frames_per_clip: int = 1

    def __post_init__(self) -> None:
        require_at_least(1, frames_per_clip=self.frames_per_clip)

    def random_map(self, element: Example, rng: np.random.Generator) -> Any:
        """Draws pairs from `video` uint8 [f h w 3]: {"high": [n H W 3], "low": [n h w 3]}.

        Raises:
          ValueError: the clip has too few frames, or its frames are smaller than `high`. Enlarged
            frames would teach the network not to add detail.
        """
        video, count, size = element["video"], self.frames_per_clip, self.spec.high_size
        if len(video) < count:
            raise ValueError(
                f"a clip of {len(video)} frames cannot give {count}: lower "
                "config.super_resolution.pairs.frames_per_clip."
            )
        if max(video.shape[1:3]) < size:
            raise ValueError(
                f"the frames of the clips are {video.shape[1]} x {video.shape[2]} pixels, but "
                f"config.super_resolution.high_size is {size}: prepare larger clips "
                "(config.data.options.height and width), or lower it."
            )
        chosen = rng.choice(len(video), count, replace=False)
        pairs = [degraded(video[i], rng, self.spec) for i in chosen]
        return {name: np.stack([pair[name] for pair in pairs]) for name in ("high", "low")}


def letterboxed(frame: np.ndarray, size: int) -> np.ndarray:
    """Scales the whole frame, uint8 [h w 3], into a black square [size size 3]."""
    height, width = frame.shape[:2]
    # In whole numbers, because the official product of floats can fall just below an integer.
    rows, columns = (max(side * size // max(height, width), 1) for side in (height, width))
    return centred(_cubic(frame, rows, columns), size, size)


def _cubic(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC)


def _jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    # RGB is passed where the encoder expects BGR, as in the official code. The order matters,
    # because JPEG blurs colour more than brightness.
    pixels = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    encoded, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not encoded:
        raise RuntimeError(f"OpenCV cannot encode a JPEG of {pixels.shape}: install it with JPEG.")
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))


def _signed(picture: np.ndarray) -> np.ndarray:
    return from_uint8(picture, np.float64).astype(np.float32)
