# SPDX-License-Identifier: Apache-2.0
"""Guided-diffusion image U-Net (Dhariwal and Nichol 2021), used for super-resolution.

Equal to the official network in parameter names, shapes and numbers.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from mmdisco_jax.base_models.image_unet_blocks import (
    AttentionBlock,
    BlockSpec,
    Downsample,
    ResBlock,
    Upsample,
    apply_layers,
)
from mmdisco_jax.nn.checks import check_positive
from mmdisco_jax.nn.conv import Conv
from mmdisco_jax.nn.layers import SiLU, chain
from mmdisco_jax.nn.norm import GroupNorm, check_groups
from mmdisco_jax.nn.time_embedding import sinusoidal_embedding


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageUNetSpec:
    """Sizes and options of the image U-Net; the defaults are the official ones.

    Attributes:
      in_channels: input channels; for super-resolution 3 + 3, the noisy and the upsampled picture.
      out_channels: output channels; twice the picture's if the variance is learned (eps | v).
      model_channels: base width.
      channel_mult: width of each level, as a multiple of `model_channels`.
      num_res_blocks: residual blocks per level on the way down; the way up has one more.
      attention_factors: levels with attention, by their factor of downsampling: 8 means 32 pixels
        if the input has 256. The middle always has attention.
      num_heads: attention heads.
      num_heads_up: attention heads on the way up; None means `num_heads`.
      head_channels: width of a head; if given, it determines the numbers of heads.
      qkv_first: order of the attention's channels, see `AttentionBlock`.
      scale_shift_norm: the time embedding scales and shifts the second norm of a residual block
        instead of being added.
      resize_in_blocks: residual blocks change the resolution, not layers of their own.
      resize_conv: those layers include a convolution.
      dropout: dropout rate before the last convolution of each residual block, in [0, 1).
      num_classes: number of class labels, or None for an unconditional network.
      num_groups: groups of every group norm; must divide each width.

    Raises:
      ValueError: the sizes do not fit each other.
    """

    in_channels: int
    out_channels: int
    model_channels: int
    channel_mult: tuple[float, ...] = (1, 2, 4, 8)
    num_res_blocks: int = 2
    attention_factors: tuple[int, ...] = ()
    num_heads: int = 1
    num_heads_up: int | None = None
    head_channels: int | None = None
    qkv_first: bool = False
    scale_shift_norm: bool = False
    resize_in_blocks: bool = False
    resize_conv: bool = True
    dropout: float = 0.0
    num_classes: int | None = None
    num_groups: int = 32

    def __post_init__(self):
        check_positive(self, "in_channels", "out_channels", "model_channels", "num_res_blocks")
        if not self.channel_mult or min(self.widths) < 1:
            raise ValueError(f"channel_mult {self.channel_mult} must give each level a channel.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it must be in [0, 1).")
        factors = [2**level for level in range(len(self.channel_mult))]
        odd = [factor for factor in self.attention_factors if factor not in factors]
        if odd:
            raise ValueError(f"attention_factors {odd} do not occur: the levels have {factors}.")
        for factor, width in zip(factors, self.widths, strict=True):
            check_groups(width, self.num_groups)
            attends = factor in self.attention_factors
            if attends or factor == factors[-1]:
                self.heads(width)
            if attends:
                self.heads(width, up=True)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(int(mult * self.model_channels) for mult in self.channel_mult)

    @property
    def emb_dim(self) -> int:
        """Width of the time embedding."""
        return 4 * self.model_channels

    def heads(self, width: int, *, up: bool = False) -> int:
        """Compute the number of attention heads over `width` channels.

        Raises:
          ValueError: the channels do not divide into them.
        """
        if self.head_channels is not None:
            count, rest = divmod(width, self.head_channels)
        else:
            count = self.num_heads_up if up and self.num_heads_up is not None else self.num_heads
            rest = width % count if count > 0 else 1
        if rest or count < 1:
            raise ValueError(
                f"{width} channels do not divide into attention heads (num_heads {self.num_heads}, "
                f"num_heads_up {self.num_heads_up}, head_channels {self.head_channels}): change "
                "one of them."
            )
        return count


class ImageUNet(nnx.Module):
    """Image U-Net. Predicts the noise in a picture, optionally given a class label.

    Super-resolution passes the upsampled low-resolution picture as further input channels.
    """

    def __init__(self, spec: ImageUNetSpec, *, rngs: nnx.Rngs):
        self.spec = spec
        dim, groups = spec.emb_dim, spec.num_groups
        self.time_embed = nnx.List(
            [
                nnx.Linear(spec.model_channels, dim, rngs=rngs),
                SiLU(),
                nnx.Linear(dim, dim, rngs=rngs),
            ]
        )
        if spec.num_classes is not None:
            self.label_emb = nnx.Embed(spec.num_classes, dim, rngs=rngs)
        maker = _Maker(spec, rngs)
        self.input_blocks, skips = maker.way_down()
        width = skips[-1]
        self.middle_block = nnx.List(
            [maker.block(width, width), maker.attention(width), maker.block(width, width)]
        )
        self.output_blocks = maker.way_up(skips)
        first = spec.widths[0]
        last = Conv(first, spec.out_channels, (3, 3), zero_init=True, rngs=rngs)
        self.out = nnx.List([GroupNorm(groups, first), SiLU(), last])

    def __call__(
        self, x: Array, t: Array, *, y: Array | None = None, key: Array | None = None
    ) -> Array:
        """Predict from a batch of noisy pictures.

        Args:
          x: [b h w in_channels]; h and w are multiples of 2 ** (levels - 1).
          t: timesteps [b], 0 .. T-1.
          y: class labels int [b]; required if the spec has classes, forbidden otherwise.
          key: random key of the dropout; None for no dropout, as when sampling.

        Returns:
          [b h w out_channels].

        Raises:
          ValueError: an input does not fit the spec.
        """
        self._check(x, y)
        emb = sinusoidal_embedding(t, self.spec.model_channels, cos_first=True)
        emb = chain(self.time_embed, emb)
        if y is not None:
            emb = emb + self.label_emb(y)
        keys = (None if key is None else jax.random.fold_in(key, i) for i in itertools.count())
        skips = []
        for layers in self.input_blocks:
            x = apply_layers(layers, x, emb, next(keys))
            skips.append(x)
        x = apply_layers(self.middle_block, x, emb, next(keys))
        for layers in self.output_blocks:
            x = jnp.concatenate([x, skips.pop()], axis=-1)
            x = apply_layers(layers, x, emb, next(keys))
        return chain(self.out, x)

    def _check(self, x: Array, y: Array | None) -> None:
        channels, factor = self.spec.in_channels, 2 ** (len(self.spec.channel_mult) - 1)
        if x.ndim != 4 or x.shape[-1] != channels:
            raise ValueError(f"x has shape {x.shape}; it must be [b h w c] with c={channels}.")
        if x.shape[1] % factor or x.shape[2] % factor:
            raise ValueError(
                f"x has shape {x.shape}; height and width must be multiples of {factor}, which the "
                "levels halve: pad or resize it."
            )
        if (y is None) != (self.spec.num_classes is None):
            rule = "not accepted" if self.spec.num_classes is None else "required"
            raise ValueError(f"y is {rule} by this network (see num_classes).")


class _Maker:
    """Builder of the blocks of a spec, in the official order."""

    def __init__(self, spec: ImageUNetSpec, rngs: nnx.Rngs):
        self.spec = spec
        self.rngs = rngs
        self.shared = BlockSpec(
            emb_dim=spec.emb_dim,
            num_groups=spec.num_groups,
            scale_shift_norm=spec.scale_shift_norm,
            dropout=spec.dropout,
        )

    def block(self, i: int, o: int, resize: str | None = None) -> ResBlock:
        return ResBlock(i, o, self.shared, resize=resize, rngs=self.rngs)

    def attention(self, width: int, *, up: bool = False) -> AttentionBlock:
        return AttentionBlock(
            width,
            self.spec.num_groups,
            num_heads=self.spec.heads(width, up=up),
            qkv_first=self.spec.qkv_first,
            rngs=self.rngs,
        )

    def way_down(self) -> tuple[nnx.List, list[int]]:
        """Build the input blocks, and list the output channels of each."""
        spec = self.spec
        width = spec.widths[0]
        blocks: list[nnx.List] = [nnx.List([Conv(spec.in_channels, width, (3, 3), rngs=self.rngs)])]
        skips = [width]
        for level, wanted in enumerate(spec.widths):
            for _ in range(spec.num_res_blocks):
                layers: list[nnx.Module] = [self.block(width, wanted)]
                if 2**level in spec.attention_factors:
                    layers.append(self.attention(wanted))
                width = wanted
                blocks.append(nnx.List(layers))
                skips.append(width)
            if level < len(spec.widths) - 1:
                blocks.append(nnx.List([self._resize(width, "down")]))
                skips.append(width)
        return nnx.List(blocks), skips

    def way_up(self, skips: list[int]) -> nnx.List:
        """Build the output blocks; each joins its input with the last unused skip connection."""
        spec, skips = self.spec, list(skips)
        width = skips[-1]
        blocks = []
        for level in reversed(range(len(spec.widths))):
            wanted = spec.widths[level]
            for index in range(spec.num_res_blocks + 1):
                layers: list[nnx.Module] = [self.block(width + skips.pop(), wanted)]
                width = wanted
                if 2**level in spec.attention_factors:
                    layers.append(self.attention(width, up=True))
                if level and index == spec.num_res_blocks:
                    layers.append(self._resize(width, "up"))
                blocks.append(nnx.List(layers))
        return nnx.List(blocks)

    def _resize(self, width: int, way: str) -> nnx.Module:
        if self.spec.resize_in_blocks:
            return self.block(width, width, way)
        kind = Upsample if way == "up" else Downsample
        return kind(width, use_conv=self.spec.resize_conv, rngs=self.rngs)
