# SPDX-License-Identifier: Apache-2.0
"""Conditional 2-D U-Net of latent diffusion (Rombach et al. 2022): Stable Diffusion's, AudioLDM's.

Equal to diffusers' `UNet2DConditionModel` in parameter names, shapes and numbers; see `UNet2DSpec`
for the supported options.
"""

from collections.abc import Sequence

import jax
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
from mmdisco_jax.base_models.unet_2d_spec import REMAT, MotionSpec, UNet2DSpec, spec_from_config
from mmdisco_jax.nn.conv import Conv
from mmdisco_jax.nn.layers import Linear, remat_call
from mmdisco_jax.nn.norm import GroupNorm
from mmdisco_jax.nn.time_embedding import TimestepEmbedding, sinusoidal_embedding
from mmdisco_jax.porting.port import Port


class UNet2D(nnx.Module):
    """Conditional 2-D U-Net. Predicts the noise in a latent, or the target it was trained on.

    Args:
      motion: adds motion modules among the frames; only `UNetMotion` passes it.
    """

    def __init__(self, spec: UNet2DSpec, *, motion: MotionSpec | None = None, rngs: nnx.Rngs):
        self.spec = spec
        first = spec.widths[0]
        self.conv_in = Conv(spec.in_channels, first, (3, 3), rngs=rngs)
        self.time_embedding = TimestepEmbedding(first, spec.time_dim, rngs=rngs)
        if spec.class_dim is not None:
            self.class_embedding = Linear(spec.class_dim, spec.time_dim, rngs=rngs)
        maker = _Maker(spec, motion, rngs)
        self.down_blocks = maker.down()
        self.mid_block = maker.middle()
        self.up_blocks = maker.up()
        self.conv_norm_out = GroupNorm(spec.num_groups, first, epsilon=spec.epsilon)
        self.conv_out = Conv(first, spec.out_channels, (3, 3), rngs=rngs)

    def __call__(
        self, x: Array, t: Array, context: Array | None = None, class_labels: Array | None = None
    ) -> Array:
        """Predict from a batch of noisy latents.

        Args:
          x: [b h w in_channels], of any height and width.
          t: timesteps [b], integer or float, 0 .. T-1.
          context: what the second attentions see, such as text features, [b s d] with d equal to
            `context_dims`; None if these equal the widths.
          class_labels: class embedding [b class_dim], such as CLAP's; required if the spec has a
            class_dim, forbidden otherwise.

        Returns:
          float32 [b h w out_channels].

        Raises:
          ValueError: an input does not fit the spec.
        """
        self.check("b h w c", x, t, context, class_labels)
        return self.predict(x, t, context, class_labels)

    def predict(
        self, x: Array, t: Array, context: Array | None, class_labels: Array | None
    ) -> Array:
        """Predict without checks, for x [n h w in_channels] with n / b frames of each sample."""
        spec = self.spec
        emb = self._embedding(t, class_labels)
        x = self.conv_in(x.astype(jnp.dtype(spec.compute_dtype)))
        skips = [x]
        for level in self.down_blocks:
            x, more = level(x, emb, context)
            skips.extend(more)
        x = self.mid_block(x, emb, context)
        for level in self.up_blocks:
            x = level(x, skips, emb, context)
        return self.conv_out(jax.nn.silu(self.conv_norm_out(x.astype(jnp.float32))))

    def _embedding(self, t: Array, class_labels: Array | None) -> Array:
        spec = self.spec
        wave = sinusoidal_embedding(
            t, spec.widths[0], cos_first=spec.cos_first, freq_shift=spec.freq_shift
        )
        emb = self.time_embedding(wave)
        if class_labels is None:
            return emb
        labels = self.class_embedding(class_labels.astype(jnp.float32))
        return jnp.concatenate([emb, labels], axis=-1) if spec.class_concat else emb + labels

    def check(
        self, axes: str, x: Array, t: Array, context: Array | None, class_labels: Array | None
    ) -> None:
        """Raise ValueError unless the inputs of a call fit the spec.

        Args:
          axes: names of x's axes, such as "b h w c".
        """
        spec = self.spec
        if x.ndim != len(axes.split()) or x.shape[-1] != spec.in_channels:
            raise ValueError(
                f"x has shape {x.shape}; it must be [{axes}] with c={spec.in_channels}."
            )
        b = x.shape[0]
        if t.shape != (b,):
            raise ValueError(f"t has shape {t.shape}; it must be [b], b={b}: one for each sample.")
        wanted = None if spec.class_dim is None else (b, spec.class_dim)
        found = None if class_labels is None else class_labels.shape
        if found != wanted:
            raise ValueError(
                f"class_labels has shape {found}; this network needs {wanted}, [b class_dim], or "
                "None without class_dim."
            )
        if context is None:
            if other := [dim for dim, width in spec.contexts if dim != width]:
                raise ValueError(
                    f"context is None, and this network attends to one: give [b s d], d={other[0]}."
                )
            return
        dims = sorted({dim for dim, _ in spec.contexts})
        if context.ndim != 3 or context.shape[0] != b or dims != [context.shape[-1]]:
            raise ValueError(
                f"context has shape {context.shape}; it must be [b s d] with b={b} and d equal to "
                f"context_dims, which are {dims}"
                + ("." if len(dims) == 1 else ": this network takes no context, pass None.")
            )


class _Level(nnx.Module):
    """One resolution of the U-Net: residual blocks, each with optional attention and motion module.

    Embeddings are float32 [b emb_dim], contexts [b s d] or None, and pictures [n h w c] with n a
    multiple of b.
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
        return remat_call(self.resnets[index], self.recomputed, x, emb)

    def mix(self, index: int, x: Array, emb: Array, context: Array | None) -> Array:
        """Attend among the pixels of each picture, then among the frames of each sample."""
        if len(self.attentions):
            x = remat_call(self.attentions[index], self.recomputed, x, context)
        if len(self.motion_modules):
            clip = x.reshape(emb.shape[0], -1, *x.shape[1:])
            x = remat_call(self.motion_modules[index], self.recomputed, clip).reshape(x.shape)
        return x


class DownLevel(_Level):
    """Level on the way down. Returns its output and the skip connections for the way up."""

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
    """Middle of the U-Net: a residual block, then attention and residual block in turn."""

    def __call__(self, x: Array, emb: Array, context: Array | None) -> Array:
        x = self.resnet(0, x, emb)
        for index in range(1, len(self.resnets)):
            x = self.resnet(index, self.mix(index - 1, x, emb, context), emb)
        return x


class UpLevel(_Level):
    """Level on the way up. Joins one skip connection per residual block, then upsamples."""

    def __init__(self, *layers: Sequence, upsampler: Upsample2D | None, remat: str):
        super().__init__(*layers, remat=remat)
        self.upsamplers = nnx.List([] if upsampler is None else [upsampler])

    def __call__(self, x: Array, skips: list[Array], emb: Array, context: Array | None) -> Array:
        """Run the level; the skip connections that it uses are popped from the end of `skips`."""
        for index in range(len(self.resnets)):
            x = jnp.concatenate([x, skips.pop()], axis=-1)
            x = self.mix(index, self.resnet(index, x, emb), emb, context)
        for upsampler in self.upsamplers:
            x = upsampler(x, *skips[-1].shape[1:3])
        return x


class _Maker:
    """Builder of the levels of a spec, in the order of execution."""

    def __init__(self, spec: UNet2DSpec, motion: MotionSpec | None, rngs: nnx.Rngs):
        self.spec, self.motion, self.rngs = spec, motion, rngs
        self.last = len(spec.widths) - 1

    def down(self) -> nnx.List:
        spec, width, levels = self.spec, self.spec.widths[0], []
        for level, (wanted, count) in enumerate(zip(spec.widths, spec.num_layers, strict=True)):
            inputs = [width, *[wanted] * (count - 1)]
            layers = self._layers(level, inputs, spec.down_attention[level])
            downsampler = None if level == self.last else Downsample2D(wanted, rngs=self.rngs)
            levels.append(DownLevel(*layers, downsampler=downsampler, remat=spec.remat))
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
            # The last skip is the downsampled output of the level above, or the first convolution.
            skips = [*[wanted] * (count - 1), spec.widths[max(level - 1, 0)]]
            inputs = [w + s for w, s in zip([width, *[wanted] * count], skips, strict=False)]
            layers = self._layers(level, inputs, spec.up_attention[level])
            upsampler = Upsample2D(wanted, rngs=self.rngs) if level else None
            levels.append(UpLevel(*layers, upsampler=upsampler, remat=spec.remat))
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


PORT = Port(spec_of=spec_from_config, module=UNet2D)
