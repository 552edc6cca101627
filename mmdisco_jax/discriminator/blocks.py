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
from mmdisco_jax.nn.av_layers import (
    AUDIO_POOL,
    VIDEO_POOL,
    AudioConv,
    FactorisedVideoConv,
    InitialBlock,
    Normalization,
    VideoConv,
    chain,
)
from mmdisco_jax.nn.conv import avg_pool
from mmdisco_jax.nn.norm import check_groups, group_norm


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
                VideoConv(o, o, 1, zero_init=True, rngs=rngs),
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
        self.video_skip_connection = Identity() if same else VideoConv(i, o, 1, rngs=rngs)
        self.audio_skip_connection = (
            Identity() if same else AudioConv(i, o, 1, audio_conv, rngs=rngs)
        )

    def __call__(
        self, video: Array, audio: Array, video_emb: Array, audio_emb: Array
    ) -> tuple[Array, Array]:
        video_hidden = chain(self.video_in_layers, video)
        audio_hidden = chain(self.audio_in_layers, audio)
        if self.video_pool and self.audio_pool:
            video, video_hidden = (avg_pool(x, self.video_pool) for x in (video, video_hidden))
            audio, audio_hidden = (avg_pool(x, self.audio_pool) for x in (audio, audio_hidden))
        video_branch = _apply_modulated(self.video_out_layers, video_hidden, video_emb)
        audio_branch = _apply_modulated(self.audio_out_layers, audio_hidden, audio_emb)
        return (
            self.video_skip_connection(video) + video_branch,
            self.audio_skip_connection(audio) + audio_branch,
        )


def _apply_modulated(layers: Sequence, x: Array, emb: Array) -> Array:
    norm, *rest = layers
    return chain(rest, norm(x, emb))


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
