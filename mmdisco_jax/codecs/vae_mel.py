# SPDX-License-Identifier: Apache-2.0
"""Sound as latents of a spectrogram's autoencoder, and back through a vocoder (AudioLDM)."""

import dataclasses
import functools

import jax.numpy as jnp
from flax import nnx
from jax import Array
from numpy.typing import ArrayLike

from mmdisco_jax.codecs.audioldm_mel import AUDIOLDM, LogMelSpec, log_mel
from mmdisco_jax.codecs.autoencoder_kl import (
    AutoencoderKL,
    AutoencoderKLSpec,
    from_model,
    posterior,
    to_model,
)
from mmdisco_jax.codecs.chunked_map import map_chunks
from mmdisco_jax.codecs.hifi_gan import HifiGan, HifiGanSpec
from mmdisco_jax.io import from_int16
from mmdisco_jax.nn.init import skeleton
from mmdisco_jax.types import ClipFormat, Clock, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class VaeMel:
    """int16 [b num_samples], or float in [-1, 1] <-> float32 [b l m c], of about unit variance.

    l and m are `vae.factor` times fewer than frames and mel bands, c = `vae.latent_channels`;
    params are {"vae": those of `AutoencoderKL`, "vocoder": those of `HifiGan`}.

    num_samples: of a clip. One that fills no whole latent is followed by silence, and what the
      vocoder gives is cut.
    chunk_clips: how many clips the networks see at once, which bounds their memory; None for all.
    dtype: in which the autoencoder computes; the vocoder computes in float32.
    """

    vae: AutoencoderKLSpec
    vocoder: HifiGanSpec
    num_samples: int
    mel: LogMelSpec = AUDIOLDM
    chunk_clips: int | None = None
    dtype: str = "float32"

    def __post_init__(self):
        mel, vocoder = self.mel, self.vocoder
        for what, have, want in (
            ("mel bands", vocoder.model_in_dim, mel.num_mels),
            ("samples a frame", vocoder.hop_length, mel.hop_length),
            ("samples a second", vocoder.sampling_rate, mel.sample_rate_hz),
        ):
            if have != want:
                raise ValueError(
                    f"the vocoder has {have} {what}, the spectrogram {want}: they must agree; "
                    "choose a vocoder of these spectrograms."
                )
        if mel.num_mels % self.vae.factor:
            raise ValueError(
                f"{mel.num_mels} mel bands must be a multiple of the autoencoder's factor "
                f"{self.vae.factor}."
            )
        if (self.vae.in_channels, self.vae.out_channels) != (1, 1):
            raise ValueError(
                f"the autoencoder reads {self.vae.in_channels} channels and gives "
                f"{self.vae.out_channels}, but a spectrogram has 1: choose one of spectrograms."
            )
        if self.num_samples < 1:
            raise ValueError(f"num_samples is {self.num_samples}; it must be at least 1.")

    @functools.cached_property
    def _skeletons(self) -> dict[str, tuple[nnx.GraphDef, nnx.State]]:
        return {
            "vae": skeleton(AutoencoderKL, self.vae),
            "vocoder": skeleton(HifiGan, self.vocoder),
        }

    @property
    def abstract(self) -> dict[str, nnx.State]:
        """Shapes of params."""
        return {name: state for name, (_, state) in self._skeletons.items()}

    def latent_shape(self, clip: ClipFormat | None = None) -> tuple[int, int, int]:
        """[l m c] of the latent of a clip of `num_samples`."""
        del clip
        samples = self.mel.hop_length * self.vae.factor
        length = -(-self.num_samples // samples)
        return length, self.mel.num_mels // self.vae.factor, self.vae.latent_channels

    def clock(self, clip: ClipFormat | None = None) -> Clock:
        """A latent frame stands for `vae.factor` spectrogram frames, from its first sample on."""
        del clip
        step = self.mel.hop_length * self.vae.factor / self.mel.sample_rate_hz
        return Clock(first=0.5 * step, step=step)

    def encode(self, params: Params, samples: ArrayLike, noise: Array | None = None) -> Array:
        """The posterior's mean, or with `noise` (standard normal, of its shape) a sample of it."""
        wave = jnp.asarray(samples)
        if wave.ndim != 2 or wave.shape[1] != self.num_samples:
            raise ValueError(
                f"sound has shape {wave.shape}; it must be [b {self.num_samples}]: prepare the "
                "data with that length and sample rate."
            )
        if wave.dtype == jnp.int16:
            wave = from_int16(wave)
        frames = self.latent_shape()[0] * self.vae.factor
        silence = frames * self.mel.hop_length - self.num_samples
        vae = nnx.merge(self._skeletons["vae"][0], params["vae"])

        def moments(wave: Array) -> Array:
            mel = log_mel(self.mel, jnp.pad(wave, ((0, 0), (0, silence))))
            return vae.encode(mel[..., None].astype(self.dtype))

        return to_model(self.vae, posterior(map_chunks(moments, wave, self.chunk_clips), noise))

    def decode(self, params: Params, x: ArrayLike) -> Array:
        """float32 [b num_samples] in [-1, 1]; ValueError for latents of another length."""
        x = jnp.asarray(x)
        if x.shape[1:] != self.latent_shape():
            raise ValueError(
                f"latents have shape {x.shape}; {self.num_samples} samples have "
                f"[b, {', '.join(map(str, self.latent_shape()))}]."
            )
        vae, vocoder = (
            nnx.merge(self._skeletons[name][0], params[name]) for name in ("vae", "vocoder")
        )

        def wave(latents: Array) -> Array:
            mel = vae.decode(from_model(self.vae, latents).astype(self.dtype))[..., 0]
            return vocoder(mel.astype(jnp.float32))[:, : self.num_samples]

        return map_chunks(wave, x, self.chunk_clips)
