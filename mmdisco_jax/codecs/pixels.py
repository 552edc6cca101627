# SPDX-License-Identifier: Apache-2.0
"""Frames as they are: uint8 pixels to [-1, 1] and back."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from mmdisco_jax.types import Array


@dataclasses.dataclass(frozen=True)
class Pixels:
    """uint8 [b f h w 3] <-> float32 [b f h w 3] in [-1, 1]."""

    def encode(self, frames: Array) -> Array:
        return jnp.asarray(frames, jnp.float32) / 127.5 - 1.0

    def decode(self, x: ArrayLike) -> np.ndarray:
        """Values outside [-1, 1] are clipped."""
        return np.rint((np.clip(np.asarray(x), -1, 1) + 1) * 127.5).astype(np.uint8)
