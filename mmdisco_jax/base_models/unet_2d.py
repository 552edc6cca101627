# SPDX-License-Identifier: Apache-2.0
"""Diffusers' conditional 2-D U-Net (Rombach et al. 2022), as Stable Diffusion and AudioLDM use it.

Names, shapes and numbers are those of `UNet2DConditionModel`; see `UNet2DSpec` for the options.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from mmdisco_jax.base_models.unet_2d_blocks import Maker
from mmdisco_jax.base_models.unet_2d_spec import UNet2DSpec, spec_from_config
from mmdisco_jax.base_models.unet_motion_spec import MotionSpec
from mmdisco_jax.nn.conv import Conv
from mmdisco_jax.nn.linear import Linear
from mmdisco_jax.nn.norm import GroupNorm
from mmdisco_jax.nn.time_embedding import TimestepEmbedding, sinusoidal_embedding
from mmdisco_jax.porting.port import Port


class UNet2D(nnx.Module):
    """What a noisy latent holds of noise, or what else it was trained to predict.

    motion: `UNetMotion`'s, which has modules among the frames.
    """

    def __init__(self, spec: UNet2DSpec, *, motion: MotionSpec | None = None, rngs: nnx.Rngs):
        self.picture = spec
        first = spec.widths[0]
        self.conv_in = Conv(spec.in_channels, first, (3, 3), rngs=rngs)
        self.time_embedding = TimestepEmbedding(first, spec.time_dim, rngs=rngs)
        if spec.class_dim is not None:
            self.class_embedding = Linear(spec.class_dim, spec.time_dim, rngs=rngs)
        maker = Maker(spec, motion, rngs)
        self.down_blocks = maker.down()
        self.mid_block = maker.middle()
        self.up_blocks = maker.up()
        self.conv_norm_out = GroupNorm(spec.num_groups, first, epsilon=spec.epsilon)
        self.conv_out = Conv(first, spec.out_channels, (3, 3), rngs=rngs)

    def __call__(
        self, x: Array, t: Array, context: Array | None = None, class_labels: Array | None = None
    ) -> Array:
        """The prediction for a batch of noisy latents.

        Args:
          x: [b h w in_channels], of any height and width.
          t: diffusion times [b], integer or float, 0 .. T-1.
          context: [b s d] that the attention sees, such as embedded text, d as `context_dims`;
            None if these equal the widths.
          class_labels: [b class_dim], exactly if the spec has a class_dim.

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
        """The same, unchecked, for x [n h w in_channels]: n / b frames of each of b samples."""
        spec = self.picture
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
        spec = self.picture
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
        """Raise ValueError unless the inputs of a call fit; `axes` are those of x, as "b h w c"."""
        spec = self.picture
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


PORT = Port(spec_of=spec_from_config, module=UNet2D)
