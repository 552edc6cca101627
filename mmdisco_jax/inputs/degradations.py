# SPDX-License-Identifier: Apache-2.0
"""Pairs of a sharp and a spoilt small picture, to train super-resolution as MM-Diffusion did."""

import dataclasses
from typing import Any

import cv2
import grain
import numpy as np

from mmdisco_jax.inputs.transforms import Example
from mmdisco_jax.io import from_uint8
from mmdisco_jax.media.picture import centred


@dataclasses.dataclass(frozen=True, kw_only=True)
class DegradationSpec:
    """The defaults are the official ones.

    Attributes:
      high_size, low_size: pixels of a side of the two square pictures.
      noise_probability: chance of Gaussian noise; its deviation is uniform in 0..max_noise, where
        255 is white.
      jpeg_probability: chance of JPEG artefacts; the quality is uniform in `jpeg_quality`, from
        the first (included) to the second (excluded), of 1..100.
    """

    high_size: int = 256
    low_size: int = 64
    noise_probability: float = 0.5
    max_noise: float = 20.0
    jpeg_probability: float = 0.5
    jpeg_quality: tuple[int, int] = (20, 80)

    def __post_init__(self):
        for name in ("high_size", "low_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
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
    """A training pair from one frame; a function of the frame and the generator's state alone.

    Args:
      frame: uint8 [h w 3], RGB.

    Returns:
      float32 pictures, -1 black and 1 white. `high` [high_size high_size 3]: the whole frame,
      enlarged or shrunk by cubic interpolation, centred on black. `low` [low_size low_size 3]:
      that, shrunk and spoilt; noise without JPEG is not clipped, as in the official code, so it
      may leave [-1, 1].

    Raises:
      ValueError: the frame has another type or shape.
    """
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3 or 0 in frame.shape:
        raise ValueError(
            f"frame is {frame.dtype} {frame.shape}, but must be uint8 [height width 3] (RGB)."
        )
    high = letterboxed(frame, spec.high_size)
    # No averaging before shrinking: the released networks saw this aliasing.
    low = _cubic(high, spec.low_size, spec.low_size)
    if rng.random() < spec.noise_probability:
        sigma = rng.uniform(0, spec.max_noise)
        low = low + sigma * rng.standard_normal(low.shape)
    if rng.random() < spec.jpeg_probability:
        low = _jpeg(low, int(rng.integers(*spec.jpeg_quality)))
    return {"high": _signed(high), "low": _signed(low)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DrawnPairs(grain.transforms.RandomMap):
    """Some frames of a clip, each once at most, as training pairs.

    Which frames, and how each is spoilt, is a function of (seed, position in the stream) alone, so
    a resumed run draws the same. The official code draws frames, each for itself; so does
    `frames_per_clip` 1. More of them share the cost of reading a clip.
    """

    spec: DegradationSpec = OFFICIAL
    frames_per_clip: int = 1

    def __post_init__(self) -> None:
        if self.frames_per_clip < 1:
            raise ValueError(f"frames_per_clip is {self.frames_per_clip}; it must be at least 1.")

    def random_map(self, element: Example, rng: np.random.Generator) -> Any:
        """{"high": [n H W 3], "low": [n h w 3]}, as `degraded`, from `video` uint8 [f h w 3].

        Raises:
          ValueError: the clip has fewer frames, or is smaller than `high`: enlarged frames teach a
            network to enlarge no further.
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
    """The whole frame, uint8 [h w 3], in the middle of a black square: [size size 3]."""
    height, width = frame.shape[:2]
    # In whole numbers: the official product of floats can fall just short of one.
    rows, columns = (max(side * size // max(height, width), 1) for side in (height, width))
    return centred(_cubic(frame, rows, columns), size, size)


def _cubic(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC)


def _jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    # RGB goes in where the encoder expects BGR, as in the official code: which channels count as
    # colour decides how they blur.
    pixels = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    encoded, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not encoded:
        raise RuntimeError(f"OpenCV cannot encode a JPEG of {pixels.shape}: install it with JPEG.")
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))


def _signed(picture: np.ndarray) -> np.ndarray:
    return from_uint8(picture, np.float64).astype(np.float32)
