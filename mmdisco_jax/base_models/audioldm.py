# SPDX-License-Identifier: Apache-2.0
"""AudioLDM (Liu et al. 2023, 2301.12503): text to sound by latent diffusion on mel spectrograms.

10.24 s at 16 kHz as released; any shorter length works. The text enters as CLAP's unit vector, as
the class of the sample. The base audio model of MMDisCo's main result.
"""

import dataclasses
from typing import Any, ClassVar

from mmdisco_jax.base_models import unet_2d_spec
from mmdisco_jax.base_models.pipelines import VAE, VOCODER, Network, PipelineBase
from mmdisco_jax.codecs.vae_mel import VaeMel
from mmdisco_jax.porting.port import PORTS
from mmdisco_jax.process.schedules import Schedule, scaled_linear
from mmdisco_jax.types import Array, Clock, LatentFormat

SAMPLE_RATE_HZ = 16_000
_HOP, _FACTOR, _MELS, _CHANNELS, _TEXT = 160, 4, 64, 8, 512


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class AudioLDM(PipelineBase):
    """Recipe of AudioLDM; `weights` defaults to none, cvssp/audioldm-m-full is the released one.

    chunk_clips: clips that the autoencoder and vocoder see at once, which bounds their memory.
    """

    LICENCE: ClassVar[str] = "CC BY-NC-SA 4.0"
    TEXT_KIND: ClassVar[str] = "ClapTextModelWithProjection"
    CODEC_PARTS: ClassVar[tuple[tuple[str, str], ...]] = (
        (VAE, "AutoencoderKL"),
        (VOCODER, "SpeechT5HifiGan"),
    )
    SCHEDULE: ClassVar[Schedule] = scaled_linear(1000, 0.0015, 0.0195)

    chunk_clips: int | None = 8

    def __post_init__(self):
        if self.clip.sample_rate_hz != SAMPLE_RATE_HZ:
            raise ValueError(
                f"AudioLDM models sound of {SAMPLE_RATE_HZ} Hz, but clip.sample_rate_hz is "
                f"{self.clip.sample_rate_hz}: set it to {SAMPLE_RATE_HZ}."
            )

    def preset(self) -> Network:
        spec = unet_2d_spec.PRESETS["audioldm_m_full"]
        spec = dataclasses.replace(spec, **self._options)
        return Network(PORTS.get("UNet2DConditionModel"), spec, None)

    def preset_format(self) -> LatentFormat:
        step = _HOP * _FACTOR
        shape = (-(-self.clip.num_samples // step), _MELS // _FACTOR, _CHANNELS)
        clock = Clock(first=0.5 * step / SAMPLE_RATE_HZ, step=step / SAMPLE_RATE_HZ)
        return LatentFormat(shape=shape, clock=clock, text_shape=(_TEXT,))

    def codec_network(self) -> Any:
        parts = self._codec_parts
        return VaeMel(
            vae=parts[VAE].spec,
            vocoder=parts[VOCODER].spec,
            num_samples=self.clip.num_samples,
            chunk_clips=self.chunk_clips,
            dtype=self.codec_dtype,
        )

    def text_shape(self, spec: Any) -> tuple[int, ...]:
        return (spec.projection_dim,)

    def _conditional(self, network: Any, x: Array, t: Array, text: Array) -> Array:
        """[b d] text is the class of the sample."""
        return network(x, t, None, text)
