# SPDX-License-Identifier: Apache-2.0
"""AnimateDiff (Guo et al. 2023, 2307.04725): text to video by motion modules in Stable Diffusion.

Frames are latents of Stable Diffusion's image autoencoder; the text is CLIP's last hidden state.
The base video model of MMDisCo's main result, on Realistic Vision 5.1.
"""

import dataclasses
from typing import Any, ClassVar

from mmdisco_jax.base_models import unet_motion
from mmdisco_jax.base_models.pipelines import (
    UNET,
    VAE,
    Network,
    PipelineBase,
    adapter_component,
    is_motion_unet,
)
from mmdisco_jax.base_models.unet_motion import merge_adapter
from mmdisco_jax.codecs.vae_frames import VaeFrames
from mmdisco_jax.porting.lazy import LazyTensors
from mmdisco_jax.porting.port import PORTS
from mmdisco_jax.process.schedules import Schedule, scaled_linear
from mmdisco_jax.types import Clock, LatentFormat

_FACTOR, _CHANNELS, _TEXT = 8, 4, (77, 768)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class AnimateDiff(PipelineBase):
    """Recipe of AnimateDiff on a Stable Diffusion 1.5 model.

    weights: a Stable Diffusion pipeline, or one whose U-Net has motion modules already.
    motion: the motion adapter's folder or id (guoyww/animatediff-motion-adapter-v1-5-2); not read
      for a U-Net that has motion modules. An entry of `config.weights`.
    chunk_frames: frames that the autoencoder sees at once, which bounds its memory.
    """

    SOURCES: ClassVar[tuple[str, ...]] = ("motion",)
    LICENCE: ClassVar[str] = "CreativeML Open RAIL-M (image model), Apache-2.0 (motion adapter)"
    TEXT_KIND: ClassVar[str] = "CLIPTextModel"
    SCHEDULE: ClassVar[Schedule] = scaled_linear(1000, 0.00085, 0.012)

    motion: str = ""
    chunk_frames: int | None = 8

    def preset(self) -> Network:
        spec = unet_motion.PRESETS["animatediff_1_5_2"]
        picture = dataclasses.replace(spec.picture, **self._options)
        return Network(
            PORTS.get("UNetMotionModel"), dataclasses.replace(spec, picture=picture), None
        )

    def preset_format(self) -> LatentFormat:
        clip = self.clip
        shape = (clip.num_frames, clip.height // _FACTOR, clip.width // _FACTOR, _CHANNELS)
        clock = Clock(first=0.5 / clip.fps, step=1 / clip.fps)
        return LatentFormat(shape=shape, clock=clock, text_shape=_TEXT)

    def require_files(self) -> None:
        lacking = []
        for require in (super().require_files, self._require_motion):
            try:
                require()
            except FileNotFoundError as error:
                lacking.append(str(error))
        if lacking:
            raise FileNotFoundError("\n".join(lacking))

    def _require_motion(self) -> None:
        if self.motion and not is_motion_unet(self.weights):
            adapter_component(self.motion, "config.weights.motion")

    def network(self) -> Network:
        if not self.weights:
            return self.preset()
        found = self.component(UNET)
        port, moving = found.port, PORTS.get("UNetMotionModel")
        assert port is not None
        spec, tensors = port.spec_of(found.config, **self._options), found.tensors
        if self.motion and port is PORTS.get("UNet2DConditionModel"):
            adapter = adapter_component(self.motion, "config.weights.motion")
            spec = unet_motion.spec_with_adapter(spec, adapter.config)
            tensors = LazyTensors(merge_adapter(tensors.entries, adapter.tensors.entries))
            port = moving
        return Network(port, spec, tensors)

    def codec_network(self) -> Any:
        return VaeFrames(
            spec=self._codec_parts[VAE].spec,
            chunk_frames=self.chunk_frames,
            dtype=self.codec_dtype,
        )
