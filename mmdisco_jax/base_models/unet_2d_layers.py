# SPDX-License-Identifier: Apache-2.0
"""Layers of diffusers' 2-D and motion U-Nets: residual blocks, transformers, resampling.

Attribute names are those of the diffusers checkpoints. Pictures are [n h w c], tokens [n m c].
Pictures may be the frames of b clips, clip after clip; n is then a multiple of b, and times and
contexts are given once per clip. Each layer computes in the dtype of its input.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from mmdisco_jax.nn.attention import attention
from mmdisco_jax.nn.conv import Conv, upsample
from mmdisco_jax.nn.layers import Identity, Linear, chain
from mmdisco_jax.nn.norm import GroupNorm, LayerNorm

_ATTENTION_EPSILON = 1e-6  # diffusers fixes it for the group norm before an attention


class ResnetBlock2D(nnx.Module):
    """Residual block with a time embedding: shortcut(x) + conv(conv(x) + time)."""

    kind = "resnet"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        emb_dim: int,
        *,
        num_groups: int,
        epsilon: float,
        rngs: nnx.Rngs,
    ):
        i, o = in_channels, out_channels
        self.norm1 = GroupNorm(num_groups, i, epsilon=epsilon)
        self.conv1 = Conv(i, o, (3, 3), rngs=rngs)
        self.time_emb_proj = Linear(emb_dim, o, rngs=rngs)
        self.norm2 = GroupNorm(num_groups, o, epsilon=epsilon)
        self.conv2 = Conv(o, o, (3, 3), rngs=rngs)
        self.conv_shortcut = Conv(i, o, (1, 1), rngs=rngs) if i != o else Identity()

    def __call__(self, x: Array, emb: Array) -> Array:
        """Map x [n h w i] and emb float32 [b emb_dim] to [n h w o]."""
        hidden = self.conv1(jax.nn.silu(self.norm1(x)))
        time = self.time_emb_proj(jax.nn.silu(emb)).astype(x.dtype)
        time = jnp.repeat(time, x.shape[0] // emb.shape[0], axis=0)
        hidden = self.norm2(hidden + time[:, None, None])
        return self.conv_shortcut(x) + self.conv2(jax.nn.silu(hidden))


class Attention(nnx.Module):
    """Multi-head attention: tokens x [n m c] attend to themselves or to a context [b s d]."""

    def __init__(self, channels: int, context_dim: int, num_heads: int, *, rngs: nnx.Rngs):
        self.num_heads = num_heads
        self.to_q = Linear(channels, channels, use_bias=False, rngs=rngs)
        self.to_k = Linear(context_dim, channels, use_bias=False, rngs=rngs)
        self.to_v = Linear(context_dim, channels, use_bias=False, rngs=rngs)
        self.to_out = nnx.List([Linear(channels, channels, rngs=rngs)])

    def __call__(self, x: Array, context: Array | None = None) -> Array:
        context = x if context is None else context.astype(x.dtype)
        # A clip's frames share its context: their queries form one sequence per clip, so that keys
        # and values need not be repeated for each frame.
        b = context.shape[0]
        queries, keys, values = (
            projected.reshape(b, -1, self.num_heads, x.shape[-1] // self.num_heads)
            for projected in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        return self.to_out[0](attention(queries, keys, values, flash=True).reshape(x.shape))


class GEGLU(nnx.Module):
    """GELU-gated linear unit (Shazeer 2020): [... i] -> [... o]."""

    def __init__(self, in_features: int, out_features: int, *, rngs: nnx.Rngs):
        self.proj = Linear(in_features, 2 * out_features, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        value, gate = jnp.split(self.proj(x), 2, axis=-1)
        return value * jax.nn.gelu(gate, approximate=False)


class FeedForward(nnx.Module):
    """Feed-forward layer with a GEGLU of four times the width: [... c] -> [... c]."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        wide = 4 * channels
        self.net = nnx.List(
            [GEGLU(channels, wide, rngs=rngs), Identity(), Linear(wide, channels, rngs=rngs)]
        )

    def __call__(self, x: Array) -> Array:
        return chain(self.net, x)


class SinusoidalPositionalEmbedding(nnx.Module):
    """Sinusoidal position embedding, added to x [n m c] with m at most `length`.

    Checkpoints contain the table, so it is a variable here, but not a trained parameter.
    """

    def __init__(self, channels: int, length: int):
        places = np.arange(length)[:, None]
        angle = places * np.exp(np.arange(0, channels, 2) * (-math.log(1e4) / channels))
        table = np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(1, length, channels)
        self.pe = nnx.Variable(jnp.asarray(table, jnp.float32))

    def __call__(self, x: Array) -> Array:
        return x + self.pe[...][:, : x.shape[1]].astype(x.dtype)


class BasicTransformerBlock(nnx.Module):
    """Pre-norm transformer block: self-attention, cross-attention and feed-forward.

    Each of the three has a residual connection.

    Args:
      context_dim: width of the context of the cross-attention, or None for no cross-attention.
      length: length of the position embedding of both attentions, or None for no embedding.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        context_dim: int | None,
        *,
        length: int | None = None,
        rngs: nnx.Rngs,
    ):
        self.norm1 = LayerNorm(channels)
        self.attn1 = Attention(channels, channels, num_heads, rngs=rngs)
        self.has_context = context_dim is not None
        if context_dim is not None:
            self.norm2 = LayerNorm(channels)
            self.attn2 = Attention(channels, context_dim, num_heads, rngs=rngs)
        self.norm3 = LayerNorm(channels)
        self.ff = FeedForward(channels, rngs=rngs)
        self.pos_embed = (
            Identity() if length is None else SinusoidalPositionalEmbedding(channels, length)
        )

    def __call__(self, x: Array, context: Array | None) -> Array:
        x = x + self.attn1(self.pos_embed(self.norm1(x)))
        if self.has_context:
            x = x + self.attn2(self.pos_embed(self.norm2(x)), context)
        return x + self.ff(self.norm3(x))


class Transformer2DModel(nnx.Module):
    """Spatial transformer with a residual connection: attention among the pixels of x [n h w c].

    Args:
      linear: the projections are linear layers; otherwise they are 1x1 convolutions.
    """

    kind = "attention"

    def __init__(
        self,
        channels: int,
        num_heads: int,
        num_layers: int,
        context_dim: int | None,
        *,
        num_groups: int,
        linear: bool,
        rngs: nnx.Rngs,
    ):
        def projection() -> nnx.Module:
            if linear:
                return Linear(channels, channels, rngs=rngs)
            return Conv(channels, channels, (1, 1), rngs=rngs)

        self.norm = GroupNorm(num_groups, channels, epsilon=_ATTENTION_EPSILON)
        self.proj_in = projection()
        self.transformer_blocks = nnx.List(
            BasicTransformerBlock(channels, num_heads, context_dim, rngs=rngs)
            for _ in range(num_layers)
        )
        self.proj_out = projection()

    def __call__(self, x: Array, context: Array | None) -> Array:
        n, h, w, c = x.shape
        tokens = self.proj_in(self.norm(x)).reshape(n, h * w, c)
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        return x + self.proj_out(tokens.reshape(x.shape))


class AnimateDiffTransformer3D(nnx.Module):
    """Motion module of AnimateDiff: attention among the frames at each pixel of x [b f h w c].

    It has a residual connection (Guo et al. 2023).

    Args:
      length: length of the position embedding, the largest number of frames.
    """

    kind = "motion"

    def __init__(
        self,
        channels: int,
        num_heads: int,
        num_layers: int,
        *,
        length: int,
        num_groups: int,
        rngs: nnx.Rngs,
    ):
        self.norm = GroupNorm(num_groups, channels, epsilon=_ATTENTION_EPSILON)
        self.proj_in = Linear(channels, channels, rngs=rngs)
        self.transformer_blocks = nnx.List(
            # Without a context the second attention is among the frames, too.
            BasicTransformerBlock(channels, num_heads, channels, length=length, rngs=rngs)
            for _ in range(num_layers)
        )
        self.proj_out = Linear(channels, channels, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        b, f, h, w, c = x.shape
        tokens = self.norm(x).reshape(b, f, h * w, c).swapaxes(1, 2).reshape(b * h * w, f, c)
        tokens = self.proj_in(tokens)
        for block in self.transformer_blocks:
            tokens = block(tokens, None)
        tokens = self.proj_out(tokens).reshape(b, h * w, f, c).swapaxes(1, 2)
        return x + tokens.reshape(x.shape)


class Downsample2D(nnx.Module):
    """Downsampling by a strided 3x3 convolution: halves height and width, rounded up."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.conv = Conv(channels, channels, (3, 3), stride=2, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.conv(x)


class Upsample2D(nnx.Module):
    """Nearest-neighbour upsampling and a 3x3 convolution: [n h w c] -> [n height width c].

    Along each axis the output has twice the extent, or one less.
    """

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.conv = Conv(channels, channels, (3, 3), rngs=rngs)

    def __call__(self, x: Array, height: int, width: int) -> Array:
        # PyTorch's "nearest" to 2n - 1 pixels reads pixel i // 2 for pixel i, as it does to 2n.
        return self.conv(upsample(x, (2, 2))[:, :height, :width])
