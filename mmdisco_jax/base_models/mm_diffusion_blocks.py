# SPDX-License-Identifier: Apache-2.0
"""Blocks of MM-Diffusion's coupled U-Net: residual blocks, self-attention, cross-attention.

Blocks map (video [b f h w c], audio [b l c], context) to video and audio. The two towers exchange
information only in `CrossAttentionBlock`. Attribute names are those of the official checkpoints.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mmdisco_jax.base_models.mm_diffusion_spec import REMAT, MMDiffusionSpec
from mmdisco_jax.base_models.random_shift import random_shift_attention
from mmdisco_jax.nn.attention import einsum_attention
from mmdisco_jax.nn.av_layers import (
    AUDIO_POOL,
    VIDEO_POOL,
    AudioConv,
    FactorisedVideoConv,
    Normalization,
    VideoConv,
    add_per_channel,
)
from mmdisco_jax.nn.conv import Conv, avg_pool, upsample
from mmdisco_jax.nn.layers import Dropout, Identity, SiLU, chain, remat_call
from mmdisco_jax.types import Array

_RESAMPLE = {None: lambda x, window: x, "down": avg_pool, "up": upsample}


class Context(NamedTuple):
    """Inputs that all blocks share in one call of the network.

    Attributes:
      emb: time embedding [b model_channels].
      shifts: int32, one for each cross-attention block, or None for no shift.
      dropout_key: random key, or None for no dropout.
    """

    emb: Array
    shifts: Array | None = None
    dropout_key: Array | None = None


def call_block(block: Any, policy: str, *args: Any) -> Any:
    """Call block(*args), rematerialised if `REMAT[policy]` names its kind.

    Shift and dropout key are arguments, so the forward and the backward pass see the same ones.
    """
    return remat_call(block, REMAT[policy], *args)


class SelfAttention(nnx.Module):
    """Self-attention among the tokens of x [b n c], with a residual connection.

    The output projection is zero at initialisation.
    """

    kind = "self_attention"

    def __init__(self, channels: int, num_heads: int, num_groups: int, *, rngs: nnx.Rngs):
        _check_heads(channels, num_heads)
        self.num_heads = num_heads
        self.norm = Normalization(num_groups, channels)
        self.qkv = Conv(channels, 3 * channels, (1,), rngs=rngs)
        self.proj_out = Conv(channels, channels, (1,), zero_init=True, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        qkv = _heads(self.qkv(self.norm(x)), self.num_heads)
        attended = einsum_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
        return x + self.proj_out(attended.reshape(x.shape))


class CrossAttentionBlock(nnx.Module):
    """Random-shift cross-attention between the modalities, added to both.

    Args:
      index: place of this block's shift in `context.shifts`.
      window: number of frames that a token sees; None for all.
    """

    kind = "cross_attention"

    def __init__(
        self,
        channels: int,
        spec: MMDiffusionSpec,
        *,
        index: int,
        window: int | None,
        up: bool = False,
        rngs: nnx.Rngs,
    ):
        self.index, self.window = index, window
        self.num_heads = spec.cross_heads(channels, up=up)
        _check_heads(channels, self.num_heads)
        self.v_norm = Normalization(spec.num_groups, channels)
        self.a_norm = Normalization(spec.num_groups, channels)
        self.v_qkv = Conv(channels, 3 * channels, (1,), rngs=rngs)
        self.a_qkv = Conv(channels, 3 * channels, (1,), rngs=rngs)
        self.video_proj_out = VideoConv(channels, channels, 1, zero_init=True, rngs=rngs)
        self.audio_proj_out = AudioConv(channels, channels, 1, "1d", zero_init=True, rngs=rngs)

    def __call__(self, video: Array, audio: Array, context: Context) -> tuple[Array, Array]:
        b, f, h, w, c = video.shape
        tokens = video.reshape(b, f * h * w, c)
        video_qkv = _heads(self.v_qkv(self.v_norm(tokens)), self.num_heads)
        audio_qkv = _heads(self.a_qkv(self.a_norm(audio)), self.num_heads)
        shift = None if context.shifts is None else context.shifts[self.index]
        seen, heard = random_shift_attention(video_qkv, audio_qkv, f, self.window or f, shift)
        return (
            video + self.video_proj_out(seen.reshape(video.shape)),
            audio + self.audio_proj_out(heard.reshape(audio.shape)),
        )


class ResBlock(nnx.Module):
    """Residual block of both towers, skip(x) + out(in(x), emb), with optional self-attention.

    Args:
      index: number of the block; it determines the random key of the dropout.
      dilation: dilation of the audio convolution.
      resample: "down" or "up" pools or repeats after `in` (other U-Nets resample before it).
      video_attention: attend among the pixels of each frame, then among the frames at each pixel.
      audio_attention: attend among all places of the audio.
      up: the block is on the way up, which may have its own number of heads.
    """

    kind = "res_block"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        spec: MMDiffusionSpec,
        *,
        index: int,
        dilation: int,
        resample: str | None = None,
        video_attention: bool = False,
        audio_attention: bool = False,
        up: bool = False,
        rngs: nnx.Rngs,
    ):
        i, o, groups = in_channels, out_channels, spec.num_groups
        self.index, self.resample, self.remat = index, resample, spec.remat
        self.use_scale_shift_norm = spec.use_scale_shift_norm
        factorised = spec.video_type == "2d+1d"
        video_conv = (
            FactorisedVideoConv(i, o, rngs=rngs) if factorised else VideoConv(i, o, 3, rngs=rngs)
        )
        audio_conv = AudioConv(i, o, 3, "1d", dilation=dilation, rngs=rngs)
        self.video_in_layers = nnx.List([Normalization(groups, i), SiLU(), video_conv])
        self.audio_in_layers = nnx.List([Normalization(groups, i), SiLU(), audio_conv])
        emb_out = 2 * o if spec.use_scale_shift_norm else o
        self.emb_layers = nnx.List([SiLU(), nnx.Linear(spec.model_channels, emb_out, rngs=rngs)])

        def out_layers(conv: nnx.Module) -> nnx.List:
            return nnx.List([Normalization(groups, o), SiLU(), Dropout(spec.dropout), conv])

        self.video_out_layers = out_layers(VideoConv(o, o, 1, zero_init=True, rngs=rngs))
        self.audio_out_layers = out_layers(AudioConv(o, o, 1, "1d", zero_init=True, rngs=rngs))
        same = i == o
        self.video_skip_connection = Identity() if same else VideoConv(i, o, 1, rngs=rngs)
        self.audio_skip_connection = Identity() if same else AudioConv(i, o, 1, "1d", rngs=rngs)
        heads = spec.heads(up=up)
        if video_attention:
            self.spatial_attention_block = SelfAttention(o, heads, groups, rngs=rngs)
            self.temporal_attention_block = SelfAttention(o, heads, groups, rngs=rngs)
        if audio_attention:
            self.audio_attention_block = SelfAttention(o, heads, groups, rngs=rngs)
        self.video_attention, self.audio_attention = video_attention, audio_attention

    def __call__(self, video: Array, audio: Array, context: Context) -> tuple[Array, Array]:
        emb = chain(self.emb_layers, context.emb)
        video_key = audio_key = None
        if context.dropout_key is not None:
            key = jax.random.fold_in(context.dropout_key, self.index)
            video_key, audio_key = jax.random.split(key)
        resample = _RESAMPLE[self.resample]
        video_hidden = resample(chain(self.video_in_layers, video), VIDEO_POOL)
        audio_hidden = resample(chain(self.audio_in_layers, audio), AUDIO_POOL["1d"])
        video_skip = self.video_skip_connection(resample(video, VIDEO_POOL))
        audio_skip = self.audio_skip_connection(resample(audio, AUDIO_POOL["1d"]))
        video = video_skip + self._out(self.video_out_layers, video_hidden, emb, video_key)
        audio = audio_skip + self._out(self.audio_out_layers, audio_hidden, emb, audio_key)
        if self.video_attention:
            video = self._attend_video(video)
        if self.audio_attention:
            audio = call_block(self.audio_attention_block, self.remat, audio)
        return video, audio

    def _out(self, layers: Sequence, x: Array, emb: Array, key: Array | None) -> Array:
        norm, activation, dropout, conv = layers
        if self.use_scale_shift_norm:
            scale, shift = jnp.split(emb, 2, axis=-1)
            x = norm(x, (scale, shift))
        else:
            x = norm(add_per_channel(x, emb))
        return conv(dropout(activation(x), key))

    def _attend_video(self, video: Array) -> Array:
        b, f, h, w, c = video.shape
        frames = video.reshape(b * f, h * w, c)
        frames = call_block(self.spatial_attention_block, self.remat, frames)
        pixels = frames.reshape(b, f, h * w, c).swapaxes(1, 2).reshape(b * h * w, f, c)
        pixels = call_block(self.temporal_attention_block, self.remat, pixels)
        return pixels.reshape(b, h * w, f, c).swapaxes(1, 2).reshape(video.shape)


def _check_heads(channels: int, num_heads: int) -> None:
    if num_heads < 1 or channels % num_heads:
        raise ValueError(
            f"{channels} channels cannot form {num_heads} attention heads: change num_heads, "
            "num_head_channels or the level's width"
        )


def _heads(qkv: Array, num_heads: int) -> Array:
    """Split a joint projection into q, k, v and heads: [b n 3*c] -> [b n 3 heads c/heads]."""
    return qkv.reshape(*qkv.shape[:2], 3, num_heads, -1)
