# SPDX-License-Identifier: Apache-2.0
"""Sound as a standardised log-mel spectrogram, and back by Griffin-Lim.

    m = clip(2 (log10(mel @ |stft|) - low) / (high - low) - 1, -1, 1)
    x = (m - mean) / scale

Frames are centred on multiples of the hop (librosa's convention, zero padding), so frame j shows
the sound around j * hop_length / sample_rate_hz seconds.
"""

import dataclasses
import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import librosa
import numpy as np
from numpy.typing import ArrayLike

from mmdisco_jax.io import INT16_SCALE_IN
from mmdisco_jax.types import Array, ClipFormat, Clock


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

    @classmethod
    def for_clip(
        cls, clip: ClipFormat, *, hop_length: int = 0, n_fft: int = 0, **options: Any
    ) -> "LogMel":
        """The codec of clips of this format.

        hop_length, n_fft: 0 chooses them: about four spectrogram frames per video frame, and the
        least power of two from 1024 on whose windows overlap by half.

        Raises:
          ValueError: the sound cannot be cut into whole hops.
        """
        hop = hop_length or _fitting_hop(clip)
        if clip.num_samples % hop:
            raise ValueError(
                f"a clip of {clip.num_samples} samples is no multiple of hop_length {hop}: change "
                "hop_length, clip.seconds or clip.sample_rate_hz, or set hop_length=0."
            )
        return cls(
            sample_rate_hz=clip.sample_rate_hz,
            num_frames=clip.num_samples // hop,
            hop_length=hop,
            n_fft=n_fft or max(1024, 1 << (2 * hop - 1).bit_length()),
            **options,
        )

    def latent_shape(self, clip: ClipFormat) -> tuple[int, ...]:
        """[l m 1] of the latent of a clip."""
        del clip
        return self.num_frames, self.num_mels, 1

    def clock(self, clip: ClipFormat) -> Clock:
        """Frames are centred on multiples of the hop."""
        del clip
        return Clock(first=0.0, step=self.hop_length / self.sample_rate_hz)

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
            **_initial_phases(),
        )
        return np.clip(wave, -1, 1).astype(np.float32)


def _initial_phases() -> dict[str, Any]:
    """Argument of Griffin-Lim that fixes its phases, equal in librosa 0.11 and 1.0 (renamed)."""
    known = inspect.signature(librosa.griffinlim).parameters
    return {"rng" if "rng" in known else "random_state": np.random.RandomState(0)}


def _fitting_hop(clip: ClipFormat) -> int:
    """The hop that cuts a clip into a multiple of 4 frames, as near as can be to 4 a picture."""
    wanted = 4 * clip.num_frames
    samples = clip.num_samples
    able = [n for n in range(4, samples // 16 + 1, 4) if samples % n == 0]
    best = min(able, key=lambda n: abs(np.log(n / wanted)), default=0)
    if not best or not 0.5 <= best / wanted <= 2:
        raise ValueError(
            f"{samples} samples ({clip.seconds} s at {clip.sample_rate_hz} Hz) cannot be cut into "
            f"about {wanted} spectrogram frames of one length: choose clip.seconds or "
            "clip.sample_rate_hz so that their product has small factors."
        )
    return samples // best
