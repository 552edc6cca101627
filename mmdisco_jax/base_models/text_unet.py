# SPDX-License-Identifier: Apache-2.0
"""Latent diffusion's U-Nets, as guidance and samplers call base models."""

import dataclasses

from mmdisco_jax.base_models.unet_2d import UNet2D
from mmdisco_jax.types import Array


@dataclasses.dataclass(frozen=True)
class TextUNet:
    """(x_t, t, text) -> eps. The text goes where the network reads it: [b d] as the class of the
    sample (AudioLDM), or [b s d] as what its attention sees (Stable Diffusion, AnimateDiff).
    """

    network: UNet2D

    def __call__(self, x_t: Array, t: Array, text: Array) -> Array:
        if self.network.spec.class_dim is not None:
            return self.network(x_t, t, None, text)
        return self.network(x_t, t, text)
