# SPDX-License-Identifier: Apache-2.0
"""Blocks of the guided-diffusion U-Net (Dhariwal and Nichol 2021); images are [b h w c].

Attribute names are those of the official checkpoints: a parameter-free module holds the index of
an activation or a dropout in a list of layers.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from mmdisco_jax.nn.activations import Identity, SiLU
from mmdisco_jax.nn.conv import Conv, avg_pool
from mmdisco_jax.nn.norm import GroupNorm, group_norm


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockSpec:
    """What all residual blocks share; see `ImageUNetSpec`."""

    emb_dim: int
    num_groups: int
    scale_shift_norm: bool
    dropout: float


def nearest_double(x: Array) -> Array:
    """Every pixel of x [b h w c] four times: [b 2h 2w c]."""
    return x.repeat(2, axis=1).repeat(2, axis=2)


def halve(x: Array) -> Array:
    """The mean of every 2x2 pixels of x [b h w c]: [b h/2 w/2 c]; an odd last row is dropped."""
    return avg_pool(x, (2, 2))


class Dropout(nnx.Module):
    """x, or with a key zeros in a share `rate` of its places and x / (1 - rate) in the others."""

    def __init__(self, rate: float):
        self.rate = rate

    def __call__(self, x: Array, key: Array | None) -> Array:
        if key is None or self.rate == 0:
            return x
        kept = jax.random.bernoulli(key, 1 - self.rate, x.shape)
        return jnp.where(kept, x / (1 - self.rate), 0)


class ResBlock(nnx.Module):
    """x [b h w i] -> skip(x) + out(in(x), emb) [b h w o].

    `resize` ("up", "down" or None) doubles or halves the pixels, of the branch between activation
    and convolution, and of the skip. The time enters as a scale and shift of the second norm, or,
    without `scale_shift_norm`, is added before it.
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
        for layer in self.emb_layers:
            emb = layer(emb)
        norm, activation, dropout, conv = self.out_layers
        hidden = activation(self._timed(norm, hidden, emb))
        return self.skip_connection(self._resized(x)) + conv(dropout(hidden, key))

    def _resized(self, x: Array) -> Array:
        if self.resize is None:
            return x
        return nearest_double(x) if self.resize == "up" else halve(x)

    def _timed(self, norm: GroupNorm, hidden: Array, emb: Array) -> Array:
        if not self.scale_shift_norm:
            return norm(hidden + emb[:, None, None].astype(hidden.dtype))
        scale, shift = jnp.split(emb, 2, axis=-1)
        # normalised * (1 + scale) + shift in one pass, over the norm's own scale and bias.
        factor = norm.scale[...] * (1 + scale)
        offset = norm.bias[...] * (1 + scale) + shift
        return group_norm(hidden, norm.num_groups, factor, offset)


class AttentionBlock(nnx.Module):
    """x + attention among all pixels of x [b h w c], in `num_heads` heads.

    q, k and v are read from the channels of one projection: by head and then q, k, v, or with
    `qkv_first` by q, k, v and then head (the official `use_new_attention_order`).
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
        mixed = jax.nn.dot_product_attention(q, k, v).reshape(b, n, c)
        return x + self.proj_out(mixed).reshape(b, h, w, c)


class Downsample(nnx.Module):
    """[b h w c] -> [b h/2 w/2 c], by a 3x3 convolution of stride 2 or by averaging."""

    def __init__(self, channels: int, *, use_conv: bool, rngs: nnx.Rngs):
        self.op = Conv(channels, channels, (3, 3), stride=2, rngs=rngs) if use_conv else None

    def __call__(self, x: Array) -> Array:
        return halve(x) if self.op is None else self.op(x)


class Upsample(nnx.Module):
    """[b h w c] -> [b 2h 2w c]: every pixel repeated, then a 3x3 convolution if asked."""

    def __init__(self, channels: int, *, use_conv: bool, rngs: nnx.Rngs):
        self.conv = Conv(channels, channels, (3, 3), rngs=rngs) if use_conv else None

    def __call__(self, x: Array) -> Array:
        x = nearest_double(x)
        return x if self.conv is None else self.conv(x)


def apply_layers(layers: nnx.List, x: Array, emb: Array, key: Array | None) -> Array:
    """The layers in turn; residual blocks get `emb` and a key of their own."""
    for index, layer in enumerate(layers):
        if isinstance(layer, ResBlock):
            own = None if key is None else jax.random.fold_in(key, index)
            x = layer(x, emb, own)
        else:
            x = layer(x)
    return x
