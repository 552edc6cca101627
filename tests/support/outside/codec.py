# SPDX-License-Identifier: Apache-2.0
"""Codecs from outside, of a pair whose latents no shipped model has: colours and volumes."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from mmdisco_jax.types import ClipFormat, Clock


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameColour:
    """uint8 [b f h w 3] <-> float32 [b f 3], the mean colour of each frame in [-1, 1]."""

    height: int
    width: int

    @classmethod
    def for_clip(cls, clip: ClipFormat) -> "FrameColour":
        return cls(height=clip.height, width=clip.width)

    def latent_shape(self, clip: ClipFormat) -> tuple[int, ...]:
        return clip.num_frames, 3

    def clock(self, clip: ClipFormat) -> Clock:
        return Clock(first=0.5 / clip.fps, step=1 / clip.fps)

    def encode(self, frames):
        return jnp.asarray(frames, jnp.float32).mean((2, 3)) / 127.5 - 1

    def decode(self, x):
        colour = np.clip((np.asarray(x) + 1) * 127.5, 0, 255).round().astype(np.uint8)
        shape = (*colour.shape[:2], self.height, self.width, 3)
        return np.broadcast_to(colour[:, :, None, None], shape)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Volume:
    """int16 [b samples] <-> float32 [b l 1], the mean level of each block; decoded as a tone."""

    block: int

    @classmethod
    def for_clip(cls, clip: ClipFormat, *, block: int = 100) -> "Volume":
        if clip.num_samples % block:
            raise ValueError(f"{clip.num_samples} samples are no multiple of block={block}.")
        return cls(block=block)

    def latent_shape(self, clip: ClipFormat) -> tuple[int, ...]:
        return clip.num_samples // self.block, 1

    def clock(self, clip: ClipFormat) -> Clock:
        step = self.block / clip.sample_rate_hz
        return Clock(first=step / 2, step=step)

    def encode(self, samples):
        level = jnp.abs(jnp.asarray(samples, jnp.float32) / 32768)
        return level.reshape(len(level), -1, self.block).mean(-1, keepdims=True) * 4 - 1

    def decode(self, x):
        level = np.clip((np.asarray(x)[..., 0] + 1) / 4, 0, 1)
        tone = np.sin(np.arange(self.block) * (2 * np.pi / 20), dtype=np.float32)
        return (level[..., None] * tone).reshape(len(level), -1)
