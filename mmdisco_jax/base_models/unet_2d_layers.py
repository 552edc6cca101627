# SPDX-License-Identifier: Apache-2.0
"""Layers of the diffusers U-Nets; pictures are [n h w c], tokens [n m c].

Attribute names are those of the diffusers checkpoints. Pictures may be the frames of clips, all
frames of one clip after the other: then n is a multiple of the b samples that times and contexts
are given for. Each layer computes in the dtype of its input.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from mmdisco_jax.nn.activations import Identity
from mmdisco_jax.nn.attention import dot_product_attend
from mmdisco_jax.nn.conv import Conv, upsample
from mmdisco_jax.nn.linear import Linear
from mmdisco_jax.nn.norm import GroupNorm, LayerNorm

_ATTENTION_EPSILON = 1e-6  # of the group norm before an attention, whatever the config says


class ResnetBlock2D(nnx.Module):
    """x -> shortcut(x) + conv(conv(x) + projected time): [n h w i] -> [n h w o]."""

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
        """x [n h w i], emb float32 [b emb_dim]."""
        hidden = self.conv1(jax.nn.silu(self.norm1(x)))
        time = self.time_emb_proj(jax.nn.silu(emb)).astype(x.dtype)
        time = jnp.repeat(time, x.shape[0] // emb.shape[0], axis=0)
        hidden = self.norm2(hidden + time[:, None, None])
        return self.conv_shortcut(x) + self.conv2(jax.nn.silu(hidden))


class Attention(nnx.Module):
    """Queries of x [n m c] attend to x itself, or to context [b s d]: -> [n m c]."""

    def __init__(self, channels: int, context_dim: int, num_heads: int, *, rngs: nnx.Rngs):
        self.num_heads = num_heads
        self.to_q = Linear(channels, channels, use_bias=False, rngs=rngs)
        self.to_k = Linear(context_dim, channels, use_bias=False, rngs=rngs)
        self.to_v = Linear(context_dim, channels, use_bias=False, rngs=rngs)
        self.to_out = nnx.List([Linear(channels, channels, rngs=rngs)])

    def __call__(self, x: Array, context: Array | None = None) -> Array:
        context = x if context is None else context.astype(x.dtype)
        # A clip's frames share its context: their queries are one sequence, nothing is repeated.
        b = context.shape[0]
        queries, keys, values = (
            projected.reshape(b, -1, self.num_heads, x.shape[-1] // self.num_heads)
            for projected in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        return self.to_out[0](dot_product_attend(queries, keys, values).reshape(x.shape))


class GEGLU(nnx.Module):
    """proj(x) split in two, one half times the GELU of the other (Shazeer 2020): i -> o."""

    def __init__(self, in_features: int, out_features: int, *, rngs: nnx.Rngs):
        self.proj = Linear(in_features, 2 * out_features, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        value, gate = jnp.split(self.proj(x), 2, axis=-1)
        return value * jax.nn.gelu(gate, approximate=False)


class FeedForward(nnx.Module):
    """GEGLU of four times the width, and back; [... c] -> [... c]."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        wide = 4 * channels
        self.net = nnx.List(
            [GEGLU(channels, wide, rngs=rngs), Identity(), Linear(wide, channels, rngs=rngs)]
        )

    def __call__(self, x: Array) -> Array:
        for layer in self.net:
            x = layer(x)
        return x


class SinusoidalPositionalEmbedding(nnx.Module):
    """x [n m c] + a table of sines and cosines by place; m up to the table's length.

    The table is part of checkpoints, so that it is a variable here, but not a parameter.
    """

    def __init__(self, channels: int, length: int):
        places = np.arange(length)[:, None]
        angle = places * np.exp(np.arange(0, channels, 2) * (-math.log(1e4) / channels))
        table = np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(1, length, channels)
        self.pe = nnx.Variable(jnp.asarray(table, jnp.float32))

    def __call__(self, x: Array) -> Array:
        return x + self.pe[...][:, : x.shape[1]].astype(x.dtype)


class BasicTransformerBlock(nnx.Module):
    """Self-attention, attention to the context, feed-forward; each of a norm, each added.

    Args:
      context_dim: of the second attention, or None for none.
      length: of the positions that both attentions see, or None for none.
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
    """x + transformer blocks over the pixels of each picture of x [n h w c].

    linear: whether checkpoints hold the projections as linear layers or as 1x1 convolutions.
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
    """x + transformer blocks over the frames at each pixel of x [b f h w c] (Guo et al. 2023).

    length: of the table of positions, the largest f.
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
            # Both attentions are among the frames: the context is the width of the clip's own.
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
    """[n h w c] -> half the height and width, rounded up."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.conv = Conv(channels, channels, (3, 3), stride=2, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.conv(x)


class Upsample2D(nnx.Module):
    """[n h w c] -> [n height width c], of twice the extents or one less along an axis."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.conv = Conv(channels, channels, (3, 3), rngs=rngs)

    def __call__(self, x: Array, height: int, width: int) -> Array:
        # PyTorch's "nearest" to 2n - 1 pixels takes pixel i // 2 for i, as that to 2n does.
        return self.conv(upsample(x, (2, 2))[:, :height, :width])
