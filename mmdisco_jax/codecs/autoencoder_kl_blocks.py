# SPDX-License-Identifier: Apache-2.0
"""Encoder and decoder of the KL autoencoder of latent diffusion (Rombach et al. 2022).

Images are [b h w c]. Attribute names are those of diffusers' checkpoints.
"""

import jax
from flax import nnx
from jax import Array

from mmdisco_jax.nn.attention import attention
from mmdisco_jax.nn.conv import Conv, upsample
from mmdisco_jax.nn.layers import Linear, chain
from mmdisco_jax.nn.norm import GroupNorm

_EPSILON = 1e-6  # all group norms of diffusers' autoencoders have it, not PyTorch's default


class ResnetBlock(nnx.Module):
    """Residual block without a time embedding: [b h w i] -> [b h w o]."""

    def __init__(self, in_channels: int, out_channels: int, groups: int, *, rngs: nnx.Rngs):
        i, o = in_channels, out_channels
        self.norm1 = GroupNorm(groups, i, epsilon=_EPSILON)
        self.conv1 = Conv(i, o, (3, 3), rngs=rngs)
        self.norm2 = GroupNorm(groups, o, epsilon=_EPSILON)
        self.conv2 = Conv(o, o, (3, 3), rngs=rngs)
        self.conv_shortcut = None if i == o else Conv(i, o, (1, 1), rngs=rngs)

    def __call__(self, x: Array) -> Array:
        hidden = self.conv1(jax.nn.silu(self.norm1(x)))
        hidden = self.conv2(jax.nn.silu(self.norm2(hidden)))
        return hidden + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Attention(nnx.Module):
    """Single-head self-attention among all pixels of x [b h w c], with a residual connection."""

    def __init__(self, channels: int, groups: int, *, rngs: nnx.Rngs):
        self.group_norm = GroupNorm(groups, channels, epsilon=_EPSILON)
        self.to_q, self.to_k, self.to_v, out = (
            Linear(channels, channels, rngs=rngs) for _ in range(4)
        )
        self.to_out = nnx.List([out])

    def __call__(self, x: Array) -> Array:
        b, h, w, c = x.shape
        tokens = self.group_norm(x).reshape(b, h * w, c)
        q, k, v = (f(tokens)[:, :, None] for f in (self.to_q, self.to_k, self.to_v))
        return x + self.to_out[0](attention(q, k, v, flash=True)[:, :, 0]).reshape(x.shape)


class Downsample(nnx.Module):
    """Downsampling by a strided 3x3 convolution: [b h w c] -> [b h/2 w/2 c].

    As in diffusers, it pads below and on the right only.
    """

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.conv = Conv(channels, channels, (3, 3), stride=2, padding=(0, 1), rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.conv(x)


class Upsample(nnx.Module):
    """Nearest-neighbour upsampling and a 3x3 convolution: [b h w c] -> [b 2h 2w c]."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.conv = Conv(channels, channels, (3, 3), rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.conv(upsample(x, (2, 2)))


class DownBlock(nnx.Module):
    """Encoder level: `num_layers` residual blocks, then a downsampling if `resize`."""

    def __init__(
        self, i: int, o: int, groups: int, *, num_layers: int, resize: bool, rngs: nnx.Rngs
    ):
        self.resnets = _resnets(i, o, groups, num_layers, rngs)
        self.downsamplers = nnx.List([Downsample(o, rngs=rngs)] if resize else [])

    def __call__(self, x: Array) -> Array:
        return chain([*self.resnets, *self.downsamplers], x)


class UpBlock(nnx.Module):
    """Decoder level: `num_layers` residual blocks, then an upsampling if `resize`."""

    def __init__(
        self, i: int, o: int, groups: int, *, num_layers: int, resize: bool, rngs: nnx.Rngs
    ):
        self.resnets = _resnets(i, o, groups, num_layers, rngs)
        self.upsamplers = nnx.List([Upsample(o, rngs=rngs)] if resize else [])

    def __call__(self, x: Array) -> Array:
        return chain([*self.resnets, *self.upsamplers], x)


class MidBlock(nnx.Module):
    """Middle of encoder and decoder: two residual blocks, with attention between if `attend`."""

    def __init__(self, channels: int, groups: int, *, attend: bool, rngs: nnx.Rngs):
        self.attentions = nnx.List([Attention(channels, groups, rngs=rngs)] if attend else [])
        self.resnets = _resnets(channels, channels, groups, 2, rngs)

    def __call__(self, x: Array) -> Array:
        first, last = self.resnets
        return last(chain(self.attentions, first(x)))


class Encoder(nnx.Module):
    """Encoder: [b h w i] -> [b h/r w/r o] with r = 2 ** (levels - 1); a level per width."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        widths: tuple[int, ...],
        groups: int,
        num_layers: int,
        attend: bool,
        rngs: nnx.Rngs,
    ):
        self.conv_in = Conv(in_channels, widths[0], (3, 3), rngs=rngs)
        self.down_blocks = nnx.List(
            [
                DownBlock(i, o, groups, num_layers=num_layers, resize=not last, rngs=rngs)
                for i, o, last in _levels(widths)
            ]
        )
        self.mid_block = MidBlock(widths[-1], groups, attend=attend, rngs=rngs)
        self.conv_norm_out = GroupNorm(groups, widths[-1], epsilon=_EPSILON)
        self.conv_out = Conv(widths[-1], out_channels, (3, 3), rngs=rngs)

    def __call__(self, x: Array) -> Array:
        hidden = self.mid_block(chain(self.down_blocks, self.conv_in(x)))
        return self.conv_out(jax.nn.silu(self.conv_norm_out(hidden)))


class Decoder(nnx.Module):
    """Decoder: [b h w i] -> [b rh rw o] with r = 2 ** (levels - 1); widths are used in reverse."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        widths: tuple[int, ...],
        groups: int,
        num_layers: int,
        attend: bool,
        rngs: nnx.Rngs,
    ):
        self.conv_in = Conv(in_channels, widths[-1], (3, 3), rngs=rngs)
        self.mid_block = MidBlock(widths[-1], groups, attend=attend, rngs=rngs)
        self.up_blocks = nnx.List(
            [
                UpBlock(i, o, groups, num_layers=num_layers + 1, resize=not last, rngs=rngs)
                for i, o, last in _levels(widths[::-1])
            ]
        )
        self.conv_norm_out = GroupNorm(groups, widths[0], epsilon=_EPSILON)
        self.conv_out = Conv(widths[0], out_channels, (3, 3), rngs=rngs)

    def __call__(self, x: Array) -> Array:
        hidden = chain(self.up_blocks, self.mid_block(self.conv_in(x)))
        return self.conv_out(jax.nn.silu(self.conv_norm_out(hidden)))


def _levels(widths: tuple[int, ...]) -> list[tuple[int, int, bool]]:
    """List (input channels, output channels, is it the last?) of each level."""
    before = (widths[0], *widths[:-1])
    lasts = [False] * (len(widths) - 1) + [True]
    return list(zip(before, widths, lasts, strict=True))


def _resnets(i: int, o: int, groups: int, count: int, rngs: nnx.Rngs) -> nnx.List:
    return nnx.List([ResnetBlock(o if n else i, o, groups, rngs=rngs) for n in range(count)])
