# SPDX-License-Identifier: Apache-2.0
"""Frames as they are: uint8 pixels to [-1, 1] and back."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from mmdisco_jax.types import Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pixels:
    """uint8 [b f h w 3] <-> float32 [b f h/patch w/patch 3*patch^2] in [-1, 1].

    patch: side of the squares whose pixels become the channels of one position (space to depth): a
      model then has patch^2 times fewer positions to look at, and loses nothing. It must divide h
      and w; 1 leaves the frames as they are.
    """

    patch: int = 1

    def __post_init__(self):
        if self.patch < 1:
            raise ValueError(f"the patch of pixels is {self.patch}, but must be at least 1.")

    def encode(self, frames: Array) -> Array:
        x = jnp.asarray(frames, jnp.float32) / 127.5 - 1.0
        p, (b, f, h, w, c) = self.patch, x.shape
        if p == 1:
            return x
        if h % p or w % p:
            raise ValueError(
                f"frames of {h} x {w} pixels cannot be cut into patches of {p}: the patch must "
                "divide both sides; change config.codecs.video.patch or the size of the frames."
            )
        squares = x.reshape(b, f, h // p, p, w // p, p, c).swapaxes(3, 4)
        return squares.reshape(b, f, h // p, w // p, p * p * c)

    def decode(self, x: ArrayLike) -> np.ndarray:
        """Values outside [-1, 1] are clipped."""
        pixels = np.rint((np.clip(np.asarray(x), -1, 1) + 1) * 127.5).astype(np.uint8)
        p, (b, f, h, w, c) = self.patch, pixels.shape
        squares = pixels.reshape(b, f, h, w, p, p, c // p**2).swapaxes(3, 4)
        return squares.reshape(b, f, h * p, w * p, c // p**2)
