# SPDX-License-Identifier: Apache-2.0
"""Sound as a standardised log-mel spectrogram, and back by Griffin-Lim.

    m = clip(2 (log10(mel @ |stft|) - low) / (high - low) - 1, -1, 1)
    x = (m - mean) / scale

Frames are centred on multiples of the hop (librosa's convention, zero padding), so frame j shows
the sound around j * hop_length / sample_rate_hz seconds.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import librosa
import numpy as np
from numpy.typing import ArrayLike

from mmdisco_jax.io import INT16_SCALE_IN
from mmdisco_jax.types import Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogMel:
    """int16 [b samples] <-> float32 [b l mels 1].

    low, high: log10 magnitudes that map to m = -1 and 1; what is quieter than `low` is silence.
    mean, scale: of m over the data, so that x has about unit variance, as the noise has.
    """

    sample_rate_hz: int
    num_frames: int
    num_mels: int
    hop_length: int
    n_fft: int
    low: float
    high: float
    mean: float = 0.0
    scale: float = 1.0
    griffin_lim_steps: int = 32

    def __post_init__(self):
        if not self.low < self.high:
            raise ValueError(f"log_mel needs low < high, got low={self.low}, high={self.high}.")
        if self.hop_length > self.n_fft // 2:
            raise ValueError(
                f"hop_length {self.hop_length} leaves gaps between windows of n_fft {self.n_fft}: "
                f"use at most {self.n_fft // 2}."
            )

    @functools.cached_property
    def mel_basis(self) -> np.ndarray:
        """float32 [mels, n_fft / 2 + 1], Slaney's scale and area norm (librosa's default)."""
        return librosa.filters.mel(
            sr=self.sample_rate_hz, n_fft=self.n_fft, n_mels=self.num_mels, fmin=0.0
        )

    @functools.cached_property
    def inverse_basis(self) -> np.ndarray:
        """float64 [n_fft / 2 + 1, mels], the pseudo-inverse of the basis."""
        return np.linalg.pinv(self.mel_basis.astype(np.float64))

    @property
    def num_samples(self) -> int:
        return self.num_frames * self.hop_length

    def encode(self, samples: Array) -> Array:
        if samples.ndim != 2 or samples.shape[1] != self.num_samples:
            raise ValueError(
                f"log_mel of {self.num_frames} frames needs [b, {self.num_samples}] samples, got "
                f"{tuple(samples.shape)}: prepare the data with that length and sample rate."
            )
        wave = jnp.asarray(samples, jnp.float32) / INT16_SCALE_IN
        padded = jnp.pad(wave, ((0, 0), (self.n_fft // 2, self.n_fft // 2)))
        starts = jnp.arange(self.num_frames)[:, None] * self.hop_length
        frames = padded[:, starts + jnp.arange(self.n_fft)]
        window = np.hanning(self.n_fft + 1)[:-1].astype(np.float32)
        magnitude = jnp.abs(jnp.fft.rfft(frames * window))
        level = jnp.log10(jnp.maximum(magnitude @ self.mel_basis.T, 1e-8))
        scaled = (level - self.low) / (self.high - self.low) * 2 - 1
        return (jax.lax.clamp(-1.0, scaled, 1.0)[..., None] - self.mean) / self.scale

    def magnitudes(self, x: np.ndarray) -> np.ndarray:
        """float32 [l mels 1] -> mel magnitudes [mels, l]; m = -1 is exactly silent."""
        m = np.clip(np.asarray(x, np.float64)[..., 0].T * self.scale + self.mean, -1, 1)
        level = 10 ** ((m + 1) / 2 * (self.high - self.low) + self.low)
        return np.where(m <= -1 + 1e-4, 0.0, level)  # float32 leaves -1 inexact

    def decode(self, x: ArrayLike) -> np.ndarray:
        """float32 [b l mels 1] -> float32 [b samples] in [-1, 1]; deterministic."""
        return np.stack([self._invert(np.asarray(one)) for one in np.asarray(x)])

    def _invert(self, x: np.ndarray) -> np.ndarray:
        # The clipped least-squares inverse: an exact one (nnls) takes a hundred times as long, and
        # the phase iterations blur the difference.
        magnitude = np.maximum(self.inverse_basis @ self.magnitudes(x), 0.0)
        # A centred transform of these samples has one frame more, at their very end.
        magnitude = np.pad(magnitude, ((0, 0), (0, 1)), "edge")
        wave = librosa.griffinlim(
            magnitude,
            n_iter=self.griffin_lim_steps,
            hop_length=self.hop_length,
            n_fft=self.n_fft,
            length=self.num_samples,
            pad_mode="constant",
            random_state=0,
        )
        return np.clip(wave, -1, 1).astype(np.float32)
