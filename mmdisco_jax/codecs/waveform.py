# SPDX-License-Identifier: Apache-2.0
"""Sound as it is: int16 samples to a waveform with one channel, and back."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from mmdisco_jax.types import Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Waveform:
    """int16 [b samples] <-> float32 [b samples 1], full scale / `scale`.

    scale: 1 gives [-1, 1], as MM-Diffusion's. A smaller one brings quiet sound nearer to the unit
    variance that the noise has; nothing is clipped in encoding.
    """

    scale: float = 1.0

    def __post_init__(self):
        if not self.scale > 0:
            raise ValueError(f"a waveform's scale is {self.scale}, but must be > 0.")

    def encode(self, samples: Array) -> Array:
        return jnp.asarray(samples, jnp.float32)[..., None] / (32768.0 * self.scale)

    def decode(self, x: ArrayLike) -> np.ndarray:
        """float32 [b samples]; values beyond full scale are clipped."""
        return np.clip(np.asarray(x, np.float32)[..., 0] * self.scale, -1.0, 1.0)
