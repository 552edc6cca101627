# SPDX-License-Identifier: Apache-2.0
"""Audio-video layers: paired convolutions and norms of MM-Diffusion and MMDisCo's discriminator.

Both networks have a video tower and an audio tower made of these layers. Attribute names are those
of the official checkpoints. Video is [b f h w c]; audio is [b l m c] (2-D) or [b l c] (1-D).
"""

import jax.numpy as jnp
from flax import nnx
from jax import Array

from mmdisco_jax.nn.conv import Conv, same_conv
from mmdisco_jax.nn.norm import GroupNorm

VIDEO_POOL = (1, 2, 2)
AUDIO_POOL = {"1d": (4,), "2d": (1, 2)}  # 2-D audio keeps its resolution in time
_AUDIO_RANK = {"1d": 1, "2d": 2}


class FactorisedVideoConv(nnx.Module):
    """(2+1)-D convolution: 3x3 within each frame, then 3 taps along time at each pixel."""

    def __init__(self, in_channels: int, out_channels: int, *, rngs: nnx.Rngs):
        self.video_conv_spatial = Conv(in_channels, out_channels, (3, 3), rngs=rngs)
        self.video_conv_temporal = Conv(out_channels, out_channels, (3,), rngs=rngs)

    def __call__(self, video: Array) -> Array:
        b, f, h, w, c = video.shape
        frames = self.video_conv_spatial(video.reshape(b * f, h, w, c))
        # A (3, 1) window over (f, h w) convolves time in place, without transposing the pixels.
        temporal = self.video_conv_temporal
        kernel, bias = (p[...].astype(video.dtype) for p in (temporal.kernel, temporal.bias))
        mixed = same_conv(frames.reshape(b, f, h * w, -1), kernel[:, None])
        return (mixed + bias).reshape(b, f, h, w, -1)


class VideoConv(nnx.Module):
    """3-D convolution with `size` taps along time, height and width."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        *,
        zero_init: bool = False,
        rngs: nnx.Rngs,
    ):
        window = (size,) * 3
        self.video_conv = Conv(in_channels, out_channels, window, zero_init=zero_init, rngs=rngs)

    def __call__(self, video: Array) -> Array:
        return self.video_conv(video)


class AudioConv(nnx.Module):
    """Audio convolution with `size` taps along l (conv "1d") or along l and m (conv "2d")."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        conv: str,
        *,
        dilation: int = 1,
        zero_init: bool = False,
        rngs: nnx.Rngs,
    ):
        self.audio_conv = Conv(
            in_channels,
            out_channels,
            (size,) * _AUDIO_RANK[conv],
            dilation=dilation,
            zero_init=zero_init,
            rngs=rngs,
        )

    def __call__(self, audio: Array) -> Array:
        return self.audio_conv(audio)


class Normalization(nnx.Module):
    """Group norm, nested one level deeper to match the official name `*.GroupNorm.*`."""

    def __init__(self, num_groups: int, channels: int):
        self.GroupNorm = GroupNorm(num_groups, channels)

    def __call__(self, x: Array, modulation: tuple[Array, Array] | None = None) -> Array:
        """Normalise x, modulated by (scale, shift) if given; see `GroupNorm`."""
        return self.GroupNorm(x, modulation)


class InitialBlock(nnx.Module):
    """First convolution of both towers. It ignores the embeddings that later blocks take."""

    def __init__(self, video_in: int, audio_in: int, out: int, audio_conv: str, *, rngs: nnx.Rngs):
        self.video_conv = FactorisedVideoConv(video_in, out, rngs=rngs)
        self.audio_conv = AudioConv(audio_in, out, 3, audio_conv, rngs=rngs)

    def __call__(self, video: Array, audio: Array, *embeddings: Array) -> tuple[Array, Array]:
        del embeddings
        return self.video_conv(video), self.audio_conv(audio)


def add_per_channel(x: Array, offset: Array) -> Array:
    """Add offset [b c] to every place of x [b ... c], in the dtype of x."""
    return x + jnp.expand_dims(offset.astype(x.dtype), tuple(range(1, x.ndim - 1)))
