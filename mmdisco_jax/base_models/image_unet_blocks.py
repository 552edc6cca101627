# SPDX-License-Identifier: Apache-2.0
"""Blocks of the guided-diffusion U-Net (Dhariwal and Nichol 2021): residual, attention, resampling.

Images are [b h w c]. Attribute names are those of the official checkpoints.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from mmdisco_jax.nn.attention import attention
from mmdisco_jax.nn.conv import Conv, avg_pool, upsample
from mmdisco_jax.nn.layers import Dropout, Identity, SiLU, chain
from mmdisco_jax.nn.norm import GroupNorm

_BY_TWO = (2, 2)  # factors of a resampling along height and width


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockSpec:
    """Options that all residual blocks share; see `ImageUNetSpec`."""

    emb_dim: int
    num_groups: int
    scale_shift_norm: bool
    dropout: float


class ResBlock(nnx.Module):
    """Residual block with a time embedding: skip(x) + out(in(x), emb), [b h w i] -> [b h' w' o].

    The embedding scales and shifts the second norm or, without `scale_shift_norm`, is added before
    it.

    Args:
      resize: "up" or "down" doubles or halves both sides of the picture, in the skip connection and
        in the branch between its first activation and convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        spec: BlockSpec,
        *,
        resize: str | None = None,
        rngs: nnx.Rngs,
    ):
        i, o, groups = in_channels, out_channels, spec.num_groups
        self.scale_shift_norm = spec.scale_shift_norm
        self.resize = resize
        self.in_layers = nnx.List([GroupNorm(groups, i), SiLU(), Conv(i, o, (3, 3), rngs=rngs)])
        emb_channels = 2 * o if spec.scale_shift_norm else o
        self.emb_layers = nnx.List([SiLU(), nnx.Linear(spec.emb_dim, emb_channels, rngs=rngs)])
        last = Conv(o, o, (3, 3), zero_init=True, rngs=rngs)
        layers: list[Any] = [GroupNorm(groups, o), SiLU(), Dropout(spec.dropout), last]
        self.out_layers = nnx.List(layers)
        self.skip_connection = Identity() if i == o else Conv(i, o, (1, 1), rngs=rngs)

    def __call__(self, x: Array, emb: Array, key: Array | None) -> Array:
        norm, activation, conv = self.in_layers
        hidden = conv(self._resized(activation(norm(x))))
        emb = chain(self.emb_layers, emb)
        norm, activation, dropout, conv = self.out_layers
        hidden = activation(self._timed(norm, hidden, emb))
        return self.skip_connection(self._resized(x)) + conv(dropout(hidden, key))

    def _resized(self, x: Array) -> Array:
        if self.resize is None:
            return x
        return upsample(x, _BY_TWO) if self.resize == "up" else avg_pool(x, _BY_TWO)

    def _timed(self, norm: GroupNorm, hidden: Array, emb: Array) -> Array:
        if not self.scale_shift_norm:
            return norm(hidden + emb[:, None, None].astype(hidden.dtype))
        scale, shift = jnp.split(emb, 2, axis=-1)
        return norm(hidden, (scale, shift))


class AttentionBlock(nnx.Module):
    """Self-attention among all pixels of x [b h w c], with a residual connection.

    Args:
      qkv_first: order of the channels of the joint projection. True is (q k v, head), the official
        `use_new_attention_order`; False is (head, q k v).
    """

    def __init__(
        self,
        channels: int,
        num_groups: int,
        *,
        num_heads: int,
        qkv_first: bool = False,
        rngs: nnx.Rngs,
    ):
        self.num_heads = num_heads
        self.qkv_first = qkv_first
        self.norm = GroupNorm(num_groups, channels)
        self.qkv = Conv(channels, 3 * channels, (1,), rngs=rngs)
        self.proj_out = Conv(channels, channels, (1,), zero_init=True, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        b, h, w, c = x.shape
        n, heads = h * w, self.num_heads
        qkv = self.qkv(self.norm(x).reshape(b, n, c))
        if self.qkv_first:
            q, k, v = jnp.moveaxis(qkv.reshape(b, n, 3, heads, c // heads), 2, 0)
        else:
            q, k, v = jnp.moveaxis(qkv.reshape(b, n, heads, 3, c // heads), 3, 0)
        mixed = attention(q, k, v).reshape(b, n, c)
        return x + self.proj_out(mixed).reshape(b, h, w, c)


class Downsample(nnx.Module):
    """Downsampling by a strided 3x3 convolution or by averaging: [b h w c] -> [b h/2 w/2 c]."""

    def __init__(self, channels: int, *, use_conv: bool, rngs: nnx.Rngs):
        self.op = Conv(channels, channels, (3, 3), stride=2, rngs=rngs) if use_conv else None

    def __call__(self, x: Array) -> Array:
        return avg_pool(x, _BY_TWO) if self.op is None else self.op(x)


class Upsample(nnx.Module):
    """Nearest-neighbour upsampling, then an optional 3x3 convolution: [b h w c] -> [b 2h 2w c]."""

    def __init__(self, channels: int, *, use_conv: bool, rngs: nnx.Rngs):
        self.conv = Conv(channels, channels, (3, 3), rngs=rngs) if use_conv else None

    def __call__(self, x: Array) -> Array:
        x = upsample(x, _BY_TWO)
        return x if self.conv is None else self.conv(x)


def apply_layers(layers: nnx.List, x: Array, emb: Array, key: Array | None) -> Array:
    """Apply `layers` to x in turn; each residual block also gets `emb` and a key of its own."""
    for index, layer in enumerate(layers):
        if isinstance(layer, ResBlock):
            own = None if key is None else jax.random.fold_in(key, index)
            x = layer(x, emb, own)
        else:
            x = layer(x)
    return x
