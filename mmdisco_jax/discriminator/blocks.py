# SPDX-License-Identifier: Apache-2.0
"""The audio and video towers of the official discriminator: residual blocks at falling resolution.

Attribute names are those of the official checkpoints. Video is [b f h w c]; audio [b l m c] (2-D)
or [b l c] (1-D). The towers share nothing: each block merely holds one layer of both.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array

from mmdisco_jax.nn.activations import Identity, SiLU
from mmdisco_jax.nn.conv import Conv, avg_pool, same_conv
from mmdisco_jax.nn.norm import GroupNorm, check_groups, group_norm

VIDEO_POOL = (1, 2, 2)
AUDIO_POOL = {"1d": (4,), "2d": (1, 2)}  # 2-D: the mel axis alone, time keeps its resolution
_AUDIO_RANK = {"1d": 1, "2d": 2}


class FactorisedVideoConv(nnx.Module):
    """3x3 convolution of each frame, then k3 over time at each pixel, both with bias."""

    def __init__(self, in_channels: int, out_channels: int, *, rngs: nnx.Rngs):
        self.video_conv_spatial = Conv(in_channels, out_channels, (3, 3), rngs=rngs)
        self.video_conv_temporal = Conv(out_channels, out_channels, (3,), rngs=rngs)

    def __call__(self, video: Array) -> Array:
        b, f, h, w, c = video.shape
        frames = self.video_conv_spatial(video.reshape(b * f, h, w, c))
        # Time convolved in place as a (3, 1) window over (f, h w): no transposition to and fro.
        temporal = self.video_conv_temporal
        mixed = same_conv(frames.reshape(b, f, h * w, -1), temporal.kernel[...][:, None])
        return (mixed + temporal.bias[...]).reshape(b, f, h, w, -1)


class PointwiseVideoConv(nnx.Module):
    """A 1x1x1 convolution: one linear map of the channels."""

    def __init__(
        self, in_channels: int, out_channels: int, *, zero_init: bool = False, rngs: nnx.Rngs
    ):
        self.video_conv = Conv(in_channels, out_channels, (1, 1, 1), zero_init=zero_init, rngs=rngs)

    def __call__(self, video: Array) -> Array:
        return self.video_conv(video)


class AudioConv(nnx.Module):
    """Convolution over (l, m) or l with `size` taps along each axis."""

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
    """Affine group norm; exists for the official name `*.GroupNorm.*`."""

    def __init__(self, num_groups: int, channels: int):
        self.GroupNorm = GroupNorm(num_groups, channels)

    def __call__(self, x: Array) -> Array:
        return self.GroupNorm(x)


class TimeModulatedNorm(nnx.Module):
    """Group norm whose scale (1 + first half) and shift (second half) are linear in SiLU(emb)."""

    def __init__(self, num_groups: int, channels: int, emb_dim: int, *, rngs: nnx.Rngs):
        check_groups(channels, num_groups)
        self.num_groups = num_groups
        self.projection = nnx.List([SiLU(), nnx.Linear(emb_dim, 2 * channels, rngs=rngs)])

    def __call__(self, x: Array, emb: Array) -> Array:
        for layer in self.projection:
            emb = layer(emb)
        scale, shift = jnp.split(emb, 2, axis=-1)
        return group_norm(x, self.num_groups, 1 + scale, shift)


class InitialBlock(nnx.Module):
    """The first convolution of both towers; ignores the embeddings."""

    def __init__(self, video_in: int, audio_in: int, out: int, audio_conv: str, *, rngs: nnx.Rngs):
        self.video_conv = FactorisedVideoConv(video_in, out, rngs=rngs)
        self.audio_conv = AudioConv(audio_in, out, 3, audio_conv, rngs=rngs)

    def __call__(
        self, video: Array, audio: Array, video_emb: Array, audio_emb: Array
    ) -> tuple[Array, Array]:
        del video_emb, audio_emb
        return self.video_conv(video), self.audio_conv(audio)


class ResBlock(nnx.Module):
    """x -> skip(x) + out(in(x), emb) in both towers, with average pooling after `in` if `down`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        emb_dim: int,
        num_groups: int,
        audio_conv: str,
        audio_dilation: int,
        down: bool,
        rngs: nnx.Rngs,
    ):
        i, o = in_channels, out_channels
        self.video_pool = VIDEO_POOL if down else None
        self.audio_pool = AUDIO_POOL[audio_conv] if down else None
        self.video_in_layers = nnx.List(
            [Normalization(num_groups, i), SiLU(), FactorisedVideoConv(i, o, rngs=rngs)]
        )
        dilated = AudioConv(i, o, 3, audio_conv, dilation=audio_dilation, rngs=rngs)
        self.audio_in_layers = nnx.List([Normalization(num_groups, i), SiLU(), dilated])
        self.video_out_layers = nnx.List(
            [
                TimeModulatedNorm(num_groups, o, emb_dim, rngs=rngs),
                SiLU(),
                Identity(),
                PointwiseVideoConv(o, o, zero_init=True, rngs=rngs),
            ]
        )
        self.audio_out_layers = nnx.List(
            [
                TimeModulatedNorm(num_groups, o, emb_dim, rngs=rngs),
                SiLU(),
                Identity(),
                AudioConv(o, o, 1, audio_conv, zero_init=True, rngs=rngs),
            ]
        )
        same = i == o
        self.video_skip_connection = Identity() if same else PointwiseVideoConv(i, o, rngs=rngs)
        self.audio_skip_connection = (
            Identity() if same else AudioConv(i, o, 1, audio_conv, rngs=rngs)
        )

    def __call__(
        self, video: Array, audio: Array, video_emb: Array, audio_emb: Array
    ) -> tuple[Array, Array]:
        video_hidden = _apply(self.video_in_layers, video)
        audio_hidden = _apply(self.audio_in_layers, audio)
        if self.video_pool and self.audio_pool:
            video, video_hidden = (avg_pool(x, self.video_pool) for x in (video, video_hidden))
            audio, audio_hidden = (avg_pool(x, self.audio_pool) for x in (audio, audio_hidden))
        video_branch = _apply_modulated(self.video_out_layers, video_hidden, video_emb)
        audio_branch = _apply_modulated(self.audio_out_layers, audio_hidden, audio_emb)
        return (
            self.video_skip_connection(video) + video_branch,
            self.audio_skip_connection(audio) + audio_branch,
        )


def _apply(layers: Sequence, x: Array) -> Array:
    for layer in layers:
        x = layer(x)
    return x


def _apply_modulated(layers: Sequence, x: Array, emb: Array) -> Array:
    norm, *rest = layers
    return _apply(rest, norm(x, emb))


class FeatureExtractor(nnx.Module):
    """Both towers: (video, audio) -> features (video [b f c], audio [b l' c]).

    Each level of `channel_mult` has `num_res_blocks` blocks; a pooling block stands between levels.
    The k-th block's audio dilation is `2 ** (k % dilation_period)`, k counted from 1.
    """

    def __init__(
        self,
        video_channels: int,
        audio_channels: int,
        *,
        model_channels: int,
        channel_mult: Sequence[int],
        num_res_blocks: int,
        emb_dim: int,
        num_groups: int,
        audio_conv: str,
        dilation_period: int,
        rngs: nnx.Rngs,
    ):
        width = channel_mult[0] * model_channels
        initial = InitialBlock(video_channels, audio_channels, width, audio_conv, rngs=rngs)
        blocks: list[nnx.List] = [nnx.List([initial])]
        for level, mult in enumerate(channel_mult):
            last = level == len(channel_mult) - 1
            for index in range(num_res_blocks + (not last)):
                block = ResBlock(
                    width,
                    mult * model_channels,
                    emb_dim=emb_dim,
                    num_groups=num_groups,
                    audio_conv=audio_conv,
                    audio_dilation=2 ** (len(blocks) % dilation_period),
                    down=index == num_res_blocks,
                    rngs=rngs,
                )
                width = mult * model_channels
                blocks.append(nnx.List([block]))
        self.input_blocks = nnx.List(blocks)
        self.out_channels = width

    def __call__(
        self, video: Array, audio: Array, video_emb: Array, audio_emb: Array
    ) -> tuple[Array, Array]:
        for (block,) in self.input_blocks:
            video, audio = block(video, audio, video_emb, audio_emb)
        # Time stays; pixels and mel bands are averaged away.
        return video.mean((2, 3)), audio.mean(2) if audio.ndim == 4 else audio
