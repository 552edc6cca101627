# SPDX-License-Identifier: Apache-2.0
"""MM-Diffusion (Ruan et al. 2023, 2212.09478): joint diffusion of video and audio by one U-Net.

MM-Diffusion draws the shift of its attention windows anew at every call, in sampling too. Here the
draw is an argument: of the training step's key, and in sampling of the noise level, so that a
sample depends neither on its batch nor on what was sampled before.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
from flax import nnx

from mmdisco_jax.base_models.joint import JointBase
from mmdisco_jax.base_models.mm_diffusion_spec import MMDiffusionSpec, draw_shifts
from mmdisco_jax.base_models.mm_diffusion_unet import MultimodalUNet
from mmdisco_jax.nn.init import Init, definition
from mmdisco_jax.types import AV, Array, Cond

MODALITIES = ("audio", "video")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class MMDiffusion(JointBase):
    """Recipe of MM-Diffusion: audio and video by the coupled U-Net.

    network: fields of `MMDiffusionSpec`; the channels follow from the codecs. The released
    Landscape and AIST++ files have the defaults.
    """

    LICENCE: ClassVar[str] = "MIT (code); the released weights name none"

    network: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def spec(self) -> MMDiffusionSpec:
        channels = {f"{m}_channels": f.shape[-1] for m, f in self.formats.items()}
        try:
            return MMDiffusionSpec(**{**self.network, **channels})
        except TypeError as error:
            raise ValueError(f"config of base model {self.name!r}: {error}.") from error

    @property
    def learns_variance(self) -> bool:
        return self.spec.learn_sigma

    def definition(self) -> tuple[nnx.GraphDef, Init]:
        if self.modalities != MODALITIES:
            raise ValueError(
                f"MM-Diffusion makes {' and '.join(MODALITIES)}, but its codecs are those of "
                f"{', '.join(self.modalities)}: give a codec for each of the two."
            )
        return definition(functools.partial(MultimodalUNet, self.spec))

    def run(self, network: Any, x: AV, t: Array, cond: Cond, key: Array, *, training: bool) -> AV:
        frames = x["video"].shape[1]
        if not training:
            return network(x, t, cond, shifts=draw_shifts(self.spec, key, frames))
        shift_key, dropout_key = jax.random.split(key)
        shifts = draw_shifts(self.spec, shift_key, frames)
        return network(x, t, shifts=shifts, dropout_key=dropout_key)
