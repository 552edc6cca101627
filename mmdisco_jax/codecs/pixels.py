# SPDX-License-Identifier: Apache-2.0
"""Frames as they are: uint8 pixels to [-1, 1] and back."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from mmdisco_jax.io import from_uint8, to_uint8
from mmdisco_jax.types import Array, ClipFormat, Clock


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pixels:
    """uint8 [b f h w 3] <-> float32 [b f h/patch w/patch 3*patch^2] in [-1, 1].

    patch: side of the squares whose pixels become the channels of one position (space to depth): a
      model then has patch^2 times fewer positions to look at, and loses nothing. It must divide h
      and w; 1 leaves the frames as they are.
    shrink: the frames are first made that many times smaller, by the mean of squares; `decode`
      leaves them small. For a model whose samples super-resolution enlarges. Must divide, too.
    """

    patch: int = 1
    shrink: int = 1

    def __post_init__(self):
        for name in ("patch", "shrink"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"the {name} of pixels is {getattr(self, name)}, but must be at least 1."
                )

    @classmethod
    def for_clip(cls, clip: ClipFormat, **options: int) -> "Pixels":
        del clip
        return cls(**options)

    def latent_shape(self, clip: ClipFormat) -> tuple[int, ...]:
        """[f h w c] of the latent of a clip."""
        side = self.patch * self.shrink
        return clip.num_frames, clip.height // side, clip.width // side, 3 * self.patch**2

    def clock(self, clip: ClipFormat) -> Clock:
        """A frame is shown from i / fps to (i + 1) / fps."""
        return Clock(first=0.5 / clip.fps, step=1 / clip.fps)

    def encode(self, frames: ArrayLike) -> Array:
        x = from_uint8(jnp.asarray(frames))
        h, w = x.shape[2:4]
        side = self.patch * self.shrink
        if h % side or w % side:
            raise ValueError(
                f"frames of {h} x {w} pixels cannot be cut into squares of {side}: patch * shrink "
                f"({self.patch} * {self.shrink}) must divide both sides; change the "
                "codec's in config.bases, or config.clip.height and width."
            )
        if self.shrink > 1:
            x = _squares(x, self.shrink).mean((4, 5))
        if self.patch == 1:
            return x
        squares = _squares(x, self.patch)
        return squares.reshape(*squares.shape[:4], -1)

    def decode(self, x: ArrayLike) -> np.ndarray:
        """Values outside [-1, 1] are clipped."""
        pixels = to_uint8(np.asarray(x), check=False)
        p, (b, f, h, w, c) = self.patch, pixels.shape
        squares = pixels.reshape(b, f, h, w, p, p, c // p**2).swapaxes(3, 4)
        return squares.reshape(b, f, h * p, w * p, c // p**2)


def _squares(x: Array, side: int) -> Array:
    """[b f h w c] -> [b f h/side w/side side side c]."""
    b, f, h, w, c = x.shape
    return x.reshape(b, f, h // side, side, w // side, side, c).swapaxes(3, 4)
