# SPDX-License-Identifier: Apache-2.0
"""Audio and video towers of the official discriminator: residual blocks with pooling.

Attribute names are those of the official checkpoints. Video is [b f h w c]; audio is [b l m c]
(2-D) or [b l c] (1-D). The towers are independent, although each block holds layers of both.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array

from mmdisco_jax.nn.av_layers import (
    AUDIO_POOL,
    VIDEO_POOL,
    AudioConv,
    FactorisedVideoConv,
    InitialBlock,
    Normalization,
    VideoConv,
)
from mmdisco_jax.nn.conv import avg_pool
from mmdisco_jax.nn.layers import Identity, SiLU, chain
from mmdisco_jax.nn.norm import check_groups, group_norm


class TimeModulatedNorm(nnx.Module):
    """Group norm modulated by a time embedding: norm(x) * (1 + scale) + shift.

    Scale and shift are a linear map of SiLU(emb).
    """

    def __init__(self, num_groups: int, channels: int, emb_dim: int, *, rngs: nnx.Rngs):
        check_groups(channels, num_groups)
        self.num_groups = num_groups
        self.projection = nnx.List([SiLU(), nnx.Linear(emb_dim, 2 * channels, rngs=rngs)])

    def __call__(self, x: Array, emb: Array) -> Array:
        scale, shift = jnp.split(chain(self.projection, emb), 2, axis=-1)
        return group_norm(x, self.num_groups, 1 + scale, shift)


class ResBlock(nnx.Module):
    """Residual block of both towers: skip(x) + out(in(x), emb).

    Args:
      audio_conv: "1d" or "2d".
      down: pool skip connection and branch, after `in`.
    """

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
    """Feature extractor: both towers, from (video, audio) to features [b f c] and [b l' c].

    Each level of `channel_mult` has `num_res_blocks` blocks, and a pooling block follows each level
    but the last. The audio dilation of block k is `2 ** (k % dilation_period)`, counted from 1.
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
        # Average over pixels and mel bands; the fusion needs the axis of time.
        return video.mean((2, 3)), audio.mean(2) if audio.ndim == 4 else audio
