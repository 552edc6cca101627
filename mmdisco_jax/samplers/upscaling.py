# SPDX-License-Identifier: Apache-2.0
"""Super-resolution of clips, picture by picture in batches of fixed size, in bounded memory."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from mmdisco_jax.codecs.pixels import Pixels
from mmdisco_jax.samplers.sampler import Sampler
from mmdisco_jax.types import DenoiseFn

# Name of the pictures among the modalities; their noise is drawn for this name.
PICTURE = "super_resolution"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Upscaler:
    """Super-resolution of clips: (denoiser, clips [b f h w 3], sample indices [b]) -> [b f H W 3].

    All frames of a clip start from one noise, which the clip's index alone decides (as MM-Diffusion
    does, so that what rests does not flicker): equal frames stay equal, and a clip does not depend
    on its batch.

    Attributes:
      sampler: of the one modality PICTURE.
      low_size: h and w.
      high_size: H and W.
      frames_per_batch: pictures on the device at a time; the last batch is filled up.
      seed: of the noise.
      sharding: where a batch of pictures lies; None leaves it to JAX.
    """

    sampler: Sampler
    low_size: int
    high_size: int
    frames_per_batch: int
    seed: int = 0
    sharding: Any = None

    def __post_init__(self):
        if self.frames_per_batch < 1:
            raise ValueError(
                f"super_resolution.frames_per_batch is {self.frames_per_batch}, but must be >= 1."
            )

    def num_steps(self, num_frames: int) -> int:
        """Steps that so many frames take."""
        return -(-num_frames // self.frames_per_batch) * len(self.sampler.levels)

    def __call__(
        self,
        denoise: DenoiseFn,
        clips: ArrayLike,
        indices: ArrayLike,
        *,
        on_steps: Callable[[int], Any] | None = None,
    ) -> np.ndarray:
        """Enlarged clips in the dtype of `clips`: uint8, or float32 with -1 black and 1 white.

        `denoise` is ({PICTURE: x_t [n 1 H W 3]}, t [n], {PICTURE: low [n 1 h w 3]}) -> {PICTURE:
        eps}, with pictures in [-1, 1]. `on_steps` is told of each number of steps that are done.

        Raises:
          ValueError: clips of another shape or size, or not one index each.
        """
        clips, indices = np.asarray(clips), np.asarray(indices)
        self._check(clips, indices)
        pixels = Pixels()
        number, size = clips.shape[0] * clips.shape[1], self.frames_per_batch
        shapes = {PICTURE: (1, self.high_size, self.high_size, clips.shape[-1])}
        pictures = clips.reshape(number, 1, *clips.shape[2:])
        owners = np.repeat(indices.astype(np.int32), clips.shape[1])
        done = []
        for first in range(0, number, size):
            rows = np.minimum(np.arange(first, first + size), number - 1)
            low = pictures[rows]
            low = pixels.encode(low) if clips.dtype == np.uint8 else low.astype(np.float32)
            low, owner = jax.device_put((low, owners[rows]), self.sharding)
            high = self.sampler.run(
                denoise, shapes, seed=self.seed, indices=owner, cond={PICTURE: low},
                on_steps=on_steps,
            )[PICTURE]  # fmt: skip
            high = np.asarray(high)[: number - first]
            done.append(pixels.decode(high) if clips.dtype == np.uint8 else high)
        high = np.concatenate(done)
        return high.reshape(*clips.shape[:2], *high.shape[2:])

    def _check(self, clips: np.ndarray, indices: np.ndarray) -> None:
        known = clips.dtype == np.uint8 or np.issubdtype(clips.dtype, np.floating)
        if clips.ndim != 5 or clips.shape[-1] != 3 or 0 in clips.shape or not known:
            raise ValueError(
                f"clips are {clips.dtype} {clips.shape}, but must be uint8 or float [b f h w 3]."
            )
        self.check_size(*clips.shape[2:4])
        if indices.shape != clips.shape[:1]:
            raise ValueError(f"{clips.shape[0]} clips need an index each, got {indices.shape}.")

    def check_size(self, height: int, width: int) -> None:
        """ValueError unless frames of this size can be enlarged."""
        if (height, width) != (self.low_size, self.low_size):
            raise ValueError(
                f"the clips have frames of {height} x {width} pixels, but super-resolution takes "
                f"{self.low_size} x {self.low_size} (config.super_resolution.low_size): sample "
                "clips of that size, or give a super-resolution that was trained for these."
            )
