# SPDX-License-Identifier: Apache-2.0
"""Sound as it is: int16 samples to a waveform with one channel, and back."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from mmdisco_jax.io import INT16_SCALE_IN
from mmdisco_jax.types import Array, ClipFormat, Clock


@dataclasses.dataclass(frozen=True, kw_only=True)
class Waveform:
    """int16 [b samples] <-> float32 [b samples/fold fold], full scale / `scale`.

    scale: 1 gives [-1, 1], as MM-Diffusion's. A smaller one brings quiet sound nearer to the unit
      variance that the noise has; nothing is clipped in encoding.
    fold: samples that become the channels of one position: a model then has `fold` times fewer
      positions to look at, and loses nothing. It must divide the number of samples.
    """

    scale: float = 1.0
    fold: int = 1

    def __post_init__(self):
        if not self.scale > 0:
            raise ValueError(f"a waveform's scale is {self.scale}, but must be > 0.")
        if self.fold < 1:
            raise ValueError(f"a waveform's fold is {self.fold}, but must be at least 1.")

    @classmethod
    def for_clip(cls, clip: ClipFormat, **options: Any) -> "Waveform":
        del clip
        return cls(**options)

    def latent_shape(self, clip: ClipFormat) -> tuple[int, ...]:
        """[l c] of the latent of a clip."""
        return clip.num_samples // self.fold, self.fold

    def clock(self, clip: ClipFormat) -> Clock:
        """Position i holds `fold` samples from i * fold on."""
        step = self.fold / clip.sample_rate_hz
        return Clock(first=0.5 * step, step=step)

    def encode(self, samples: ArrayLike) -> Array:
        x = jnp.asarray(samples, jnp.float32) / (INT16_SCALE_IN * self.scale)
        if x.shape[-1] % self.fold:
            raise ValueError(
                f"{x.shape[-1]} samples cannot be folded by {self.fold}: the fold must divide "
                "their number; change the codec's fold in config.bases, or config.clip.seconds."
            )
        return x.reshape(*x.shape[:-1], -1, self.fold)

    def decode(self, x: ArrayLike) -> np.ndarray:
        """float32 [b samples]; values beyond full scale are clipped."""
        folded = np.asarray(x, np.float32)
        return np.clip(folded.reshape(len(folded), -1) * self.scale, -1.0, 1.0)
