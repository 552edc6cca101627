# SPDX-License-Identifier: Apache-2.0
"""Diffusers' motion U-Net: a 2-D U-Net with AnimateDiff's motion modules (Guo et al. 2023).

Names, shapes and numbers are those of `UNetMotionModel`.
"""

from collections.abc import Mapping
from typing import TypeVar

from flax import nnx
from jax import Array

from mmdisco_jax.base_models.unet_2d import UNet2D
from mmdisco_jax.base_models.unet_motion_spec import UNetMotionSpec, spec_from_config
from mmdisco_jax.porting.port import Port

_MODULE = ".motion_modules."
T = TypeVar("T")


class UNetMotion(UNet2D):
    """What a noisy clip of latents holds of noise; all frames have the clip's time and context."""

    def __init__(self, spec: UNetMotionSpec, *, rngs: nnx.Rngs):
        super().__init__(spec.picture, motion=spec.motion, rngs=rngs)
        self.max_frames = spec.motion.max_frames

    def __call__(
        self, x: Array, t: Array, context: Array | None = None, class_labels: Array | None = None
    ) -> Array:
        """The prediction for a batch of noisy clips.

        Args:
          x: [b f h w in_channels], f at most `max_frames`.
          t, context, class_labels: as `UNet2D`, one for each clip.

        Returns:
          float32 [b f h w out_channels].

        Raises:
          ValueError: an input does not fit the spec.
        """
        self.check("b f h w c", x, t, context, class_labels)
        b, f, *picture = x.shape
        if f > self.max_frames:
            raise ValueError(
                f"x has {f} frames, and the motion modules know {self.max_frames} positions: "
                "predict a shorter clip."
            )
        eps = self.predict(x.reshape(b * f, *picture), t, context, class_labels)
        return eps.reshape(b, f, *eps.shape[1:])


def merge_adapter(unet_2d: Mapping[str, T], adapter: Mapping[str, T]) -> dict[str, T]:
    """The tensors of a motion U-Net from those of a 2-D U-Net and of a motion adapter.

    By name, as diffusers' `UNetMotionModel.from_unet2d` ends up; the spec is `spec_with_adapter`'s.

    Raises:
      ValueError: the adapter holds other tensors than motion modules, or the 2-D U-Net some.
    """
    odd = sorted(name for name in adapter if _MODULE not in name)
    if odd or not adapter:
        raise ValueError(
            f"a motion adapter must hold motion modules only; this one holds {odd[:6] or 'nothing'}"
            ": is it the right file?"
        )
    moving = sorted(name for name in unet_2d if _MODULE in name)
    if moving:
        raise ValueError(
            f"the 2-D U-Net already has motion modules, {moving[:3]}: load it as a motion U-Net, "
            "or give the 2-D U-Net that it was made of."
        )
    return {**unet_2d, **adapter}


PORT = Port(spec_of=spec_from_config, module=UNetMotion)
