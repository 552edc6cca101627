# SPDX-License-Identifier: Apache-2.0
"""The levels of the diffusers U-Nets, with or without motion modules, under diffusers' names."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array

from mmdisco_jax.base_models.unet_2d_layers import (
    AnimateDiffTransformer3D,
    Downsample2D,
    ResnetBlock2D,
    Transformer2DModel,
    Upsample2D,
)
from mmdisco_jax.base_models.unet_2d_spec import REMAT, UNet2DSpec
from mmdisco_jax.base_models.unet_motion_spec import MotionSpec
from mmdisco_jax.nn.remat import call


class _Level(nnx.Module):
    """Residual blocks, each followed by an attention and a motion module, or by one, or none.

    Emb is float32 [b emb_dim], context [b s d] or None; pictures [n h w c], n a multiple of b.
    """

    def __init__(
        self,
        resnets: Sequence[ResnetBlock2D],
        attentions: Sequence[Transformer2DModel],
        motion_modules: Sequence[AnimateDiffTransformer3D],
        *,
        remat: str,
    ):
        self.resnets = nnx.List(resnets)
        self.attentions = nnx.List(attentions)
        self.motion_modules = nnx.List(motion_modules)
        self.recomputed = REMAT[remat]

    def resnet(self, index: int, x: Array, emb: Array) -> Array:
        return call(self.resnets[index], self.recomputed, x, emb)

    def mix(self, index: int, x: Array, emb: Array, context: Array | None) -> Array:
        """The pixels of each picture, then the frames of each sample, see one another."""
        if len(self.attentions):
            x = call(self.attentions[index], self.recomputed, x, context)
        if len(self.motion_modules):
            clip = x.reshape(emb.shape[0], -1, *x.shape[1:])
            x = call(self.motion_modules[index], self.recomputed, clip).reshape(x.shape)
        return x


class DownLevel(_Level):
    """-> the pictures, halved unless this is the last level, and those to be met on the way up."""

    def __init__(self, *layers: Sequence, downsampler: Downsample2D | None, remat: str):
        super().__init__(*layers, remat=remat)
        self.downsamplers = nnx.List([] if downsampler is None else [downsampler])

    def __call__(
        self, x: Array, emb: Array, context: Array | None
    ) -> tuple[Array, tuple[Array, ...]]:
        skips = []
        for index in range(len(self.resnets)):
            x = self.mix(index, self.resnet(index, x, emb), emb, context)
            skips.append(x)
        for downsampler in self.downsamplers:
            x = downsampler(x)
            skips.append(x)
        return x, tuple(skips)


class MidLevel(_Level):
    """One residual block more than attentions: the first comes before them."""

    def __call__(self, x: Array, emb: Array, context: Array | None) -> Array:
        x = self.resnet(0, x, emb)
        for index in range(1, len(self.resnets)):
            x = self.resnet(index, self.mix(index - 1, x, emb, context), emb)
        return x


class UpLevel(_Level):
    """Takes as many of `skips` from the end as it has residual blocks, and enlarges to the next."""

    def __init__(self, *layers: Sequence, upsampler: Upsample2D | None, remat: str):
        super().__init__(*layers, remat=remat)
        self.upsamplers = nnx.List([] if upsampler is None else [upsampler])

    def __call__(self, x: Array, skips: list[Array], emb: Array, context: Array | None) -> Array:
        """Removes from `skips` what it takes."""
        for index in range(len(self.resnets)):
            x = jnp.concatenate([x, skips.pop()], axis=-1)
            x = self.mix(index, self.resnet(index, x, emb), emb, context)
        for upsampler in self.upsamplers:
            x = upsampler(x, *skips[-1].shape[1:3])
        return x


class Maker:
    """Builds the levels of a spec, in the order of execution."""

    def __init__(self, spec: UNet2DSpec, motion: MotionSpec | None, rngs: nnx.Rngs):
        self.spec, self.motion, self.rngs = spec, motion, rngs
        self.last = len(spec.widths) - 1

    def down(self) -> nnx.List:
        spec, width, levels = self.spec, self.spec.widths[0], []
        for level, (wanted, count) in enumerate(zip(spec.widths, spec.num_layers, strict=True)):
            inputs = [width, *[wanted] * (count - 1)]
            layers = self._layers(level, inputs, spec.down_attention[level])
            halving = None if level == self.last else Downsample2D(wanted, rngs=self.rngs)
            levels.append(DownLevel(*layers, downsampler=halving, remat=spec.remat))
            width = wanted
        return nnx.List(levels)

    def middle(self) -> MidLevel:
        spec, width = self.spec, self.spec.widths[-1]
        motions = []
        if self.motion is not None and self.motion.num_mid_layers is not None:
            motions = [self._motion(self.last, self.motion, self.motion.num_mid_layers)]
        attention = self._attention(self.last, spec.num_mid_transformers)
        resnets = [self._resnet(width, width) for _ in range(2)]
        return MidLevel(resnets, [attention], motions, remat=spec.remat)

    def up(self) -> nnx.List:
        spec, width, levels = self.spec, self.spec.widths[-1], []
        for level in reversed(range(len(spec.widths))):
            wanted, count = spec.widths[level], spec.num_layers[level] + 1
            # The last skip is the halved picture of the level above, or the first convolution's.
            skips = [*[wanted] * (count - 1), spec.widths[max(level - 1, 0)]]
            inputs = [w + s for w, s in zip([width, *[wanted] * count], skips, strict=False)]
            layers = self._layers(level, inputs, spec.up_attention[level])
            doubling = Upsample2D(wanted, rngs=self.rngs) if level else None
            levels.append(UpLevel(*layers, upsampler=doubling, remat=spec.remat))
            width = wanted
        return nnx.List(levels)

    def _layers(self, level: int, inputs: Sequence[int], attends: bool) -> tuple[list, list, list]:
        spec, motion = self.spec, self.motion
        resnets = [self._resnet(width, spec.widths[level]) for width in inputs]
        attentions = [
            self._attention(level, spec.num_transformers[level]) for _ in inputs if attends
        ]
        if motion is None:
            return resnets, attentions, []
        motions = [self._motion(level, motion, motion.num_layers[level]) for _ in inputs]
        return resnets, attentions, motions

    def _resnet(self, in_channels: int, out_channels: int) -> ResnetBlock2D:
        return ResnetBlock2D(
            in_channels,
            out_channels,
            self.spec.emb_dim,
            num_groups=self.spec.num_groups,
            epsilon=self.spec.epsilon,
            rngs=self.rngs,
        )

    def _attention(self, level: int, num_layers: int) -> Transformer2DModel:
        spec = self.spec
        return Transformer2DModel(
            spec.widths[level],
            spec.num_heads[level],
            num_layers,
            spec.context_dims[level],
            num_groups=spec.num_groups,
            linear=spec.linear_projection,
            rngs=self.rngs,
        )

    def _motion(self, level: int, motion: MotionSpec, num_layers: int) -> AnimateDiffTransformer3D:
        return AnimateDiffTransformer3D(
            self.spec.widths[level],
            motion.num_heads[level],
            num_layers,
            length=motion.max_frames,
            num_groups=self.spec.num_groups,
            rngs=self.rngs,
        )
