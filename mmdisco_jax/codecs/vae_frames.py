# SPDX-License-Identifier: Apache-2.0
"""Frames as latents of an image autoencoder, each frame alone."""

import dataclasses
import functools
import math

import jax.numpy as jnp
from flax import nnx
from jax import Array
from numpy.typing import ArrayLike

from mmdisco_jax.codecs.autoencoder_kl import (
    AutoencoderKL,
    AutoencoderKLSpec,
    from_model,
    posterior,
    to_model,
)
from mmdisco_jax.codecs.chunked_map import map_chunks
from mmdisco_jax.io import from_uint8, to_uint8
from mmdisco_jax.nn.init import skeleton
from mmdisco_jax.types import ClipFormat, Clock, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class VaeFrames:
    """uint8 [b f H W 3] <-> float32 [b f h w c], of about unit variance.

    H / h = W / w = `spec.factor`, c = `spec.latent_channels`; params are those of `AutoencoderKL`.

    chunk_frames: how many frames of all clips the network sees at once, which bounds its memory;
      None for all.
    dtype: in which the network computes.
    """

    spec: AutoencoderKLSpec
    chunk_frames: int | None = None
    dtype: str = "float32"

    def __post_init__(self):
        if (self.spec.in_channels, self.spec.out_channels) != (3, 3):
            raise ValueError(
                f"the autoencoder reads {self.spec.in_channels} channels and gives "
                f"{self.spec.out_channels}, but frames have 3: choose one of colour pictures."
            )

    @functools.cached_property
    def _skeleton(self) -> tuple[nnx.GraphDef, nnx.State]:
        return skeleton(AutoencoderKL, self.spec)

    @property
    def abstract(self) -> nnx.State:
        """Shapes of params."""
        return self._skeleton[1]

    def latent_shape(self, clip: ClipFormat) -> tuple[int, ...]:
        """[f h w c] of the latent of a clip."""
        factor = self.spec.factor
        return (
            clip.num_frames,
            clip.height // factor,
            clip.width // factor,
            self.spec.latent_channels,
        )

    def clock(self, clip: ClipFormat) -> Clock:
        """Each latent frame is one video frame."""
        return Clock(first=0.5 / clip.fps, step=1 / clip.fps)

    def encode(self, params: Params, frames: ArrayLike, noise: Array | None = None) -> Array:
        """The posterior's mean, or with `noise` (standard normal, of its shape) a sample of it.

        ValueError if the frames are not uint8, or their sides no multiples of `spec.factor`.
        """
        vae = nnx.merge(self._skeleton[0], params)

        def moments(pixels: Array) -> Array:
            return vae.encode(from_uint8(pixels).astype(self.dtype))

        frames = jnp.asarray(frames)
        if frames.dtype != jnp.uint8:
            raise ValueError(f"frames have dtype {frames.dtype}, but must be uint8, 0 to 255.")
        z = posterior(_per_frame(moments, frames, self.chunk_frames), noise)
        return to_model(self.spec, z)

    def decode(self, params: Params, x: ArrayLike) -> Array:
        """uint8, rounded; the official code cuts towards zero."""
        vae = nnx.merge(self._skeleton[0], params)

        def pixels(latents: Array) -> Array:
            picture = vae.decode(from_model(self.spec, latents).astype(self.dtype))
            return to_uint8(picture, check=False)

        return _per_frame(pixels, jnp.asarray(x), self.chunk_frames)


def _per_frame(function, clips: Array, chunk: int | None) -> Array:
    if clips.ndim != 5:
        raise ValueError(f"video has shape {clips.shape}; it must be [b f h w c].")
    b, f = clips.shape[:2]
    mapped = map_chunks(function, clips.reshape(math.prod((b, f)), *clips.shape[2:]), chunk)
    return mapped.reshape(b, f, *mapped.shape[1:])
