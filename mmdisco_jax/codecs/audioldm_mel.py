# SPDX-License-Identifier: Apache-2.0
"""Log-mel spectrograms of AudioLDM and Auffusion, which their autoencoders and vocoders expect.

    mel = log(max(basis @ |stft(wave)|, 1e-5))

Frames start (n_fft - hop) / 2 samples before multiples of the hop, in a wave that is mirrored at
its ends, so that n samples give n // hop frames. The `log_mel` codec differs: it pads with silence
and centres its frames.
"""

import dataclasses
import functools

import jax.numpy as jnp
import librosa
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

_QUIETEST, _LOUDEST = 1e-5, 200.0  # magnitudes that Auffusion's pictures show as 0 and 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogMelSpec:
    """Parameters of a log-mel spectrogram.

    Attributes:
      sample_rate_hz: sample rate of the wave.
      n_fft: samples per Fourier transform.
      win_length: samples of the Hann window, in the middle of the n_fft.
      hop_length: samples between frames.
      num_mels: number of Slaney mel bands.
      fmin_hz, fmax_hz: range of the mel bands.
      floor: smallest mel magnitude.
      epsilon: added to the squared magnitude of each frequency.

    Raises:
      ValueError: hop, window and transform, or the frequencies, do not fit each other.
    """

    sample_rate_hz: int
    n_fft: int
    win_length: int
    hop_length: int
    num_mels: int
    fmin_hz: float
    fmax_hz: float
    floor: float = 1e-5
    epsilon: float = 0.0

    def __post_init__(self):
        if not 0 < self.hop_length <= self.win_length <= self.n_fft:
            raise ValueError(
                f"hop_length {self.hop_length}, win_length {self.win_length} and n_fft "
                f"{self.n_fft} must not fall in this order: a larger hop skips samples, a larger "
                "window does not fit the transform."
            )
        if not 0 <= self.fmin_hz < self.fmax_hz <= self.sample_rate_hz / 2:
            raise ValueError(
                f"fmin_hz {self.fmin_hz} and fmax_hz {self.fmax_hz} must rise within 0 .. "
                f"{self.sample_rate_hz / 2}, half the sample rate."
            )

    @functools.cached_property
    def basis(self) -> np.ndarray:
        """Mel filters, float32 [n_fft / 2 + 1, num_mels], with Slaney's scale and area norm."""
        return librosa.filters.mel(
            sr=self.sample_rate_hz,
            n_fft=self.n_fft,
            n_mels=self.num_mels,
            fmin=self.fmin_hz,
            fmax=self.fmax_hz,
        ).T

    @functools.cached_property
    def window(self) -> np.ndarray:
        """Window, float32 [n_fft]: a periodic Hann window, padded with zeros."""
        hann = np.hanning(self.win_length + 1)[:-1].astype(np.float32)
        before = (self.n_fft - self.win_length) // 2
        return np.pad(hann, (before, self.n_fft - self.win_length - before))


AUDIOLDM = LogMelSpec(
    sample_rate_hz=16_000,
    n_fft=1024,
    win_length=1024,
    hop_length=160,
    num_mels=64,
    fmin_hz=0,
    fmax_hz=8000,
)
AUFFUSION = LogMelSpec(
    sample_rate_hz=16_000,
    n_fft=2048,
    win_length=1024,
    hop_length=160,
    num_mels=256,
    fmin_hz=0,
    fmax_hz=8000,
    epsilon=1e-9,
)


def log_mel(spec: LogMelSpec, wave: ArrayLike) -> Array:
    """Compute the log-mel spectrogram of a wave.

    Args:
      wave: [b n], float in [-1, 1].

    Returns:
      Natural logarithms, float32 [b n // hop num_mels].

    Raises:
      ValueError: the wave is not floating, has another rank, or is too short to be mirrored.
    """
    x = jnp.asarray(wave)
    margin = (spec.n_fft - spec.hop_length) // 2
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"the wave has dtype {x.dtype}; scale it to float in [-1, 1].")
    if x.ndim != 2 or x.shape[1] <= max(margin, spec.hop_length - 1):
        raise ValueError(
            f"the wave has shape {x.shape}; it must be [b n] with more than {margin} samples, "
            "which are mirrored at its ends."
        )
    padded = jnp.pad(x.astype(jnp.float32), ((0, 0), (margin, margin)), mode="reflect")
    count = (padded.shape[1] - spec.n_fft) // spec.hop_length + 1
    starts = spec.hop_length * np.arange(count)[:, None]
    frames = padded[:, starts + np.arange(spec.n_fft)] * spec.window
    spectrum = jnp.fft.rfft(frames)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    return jnp.log(jnp.maximum(jnp.sqrt(power + spec.epsilon) @ spec.basis, spec.floor))


def auffusion_level(wave: Array) -> Array:
    """Scale a wave [b n] to a peak of 0.95, as Auffusion does; silence stays silent."""
    peak = jnp.abs(wave).max(axis=1, keepdims=True)
    return wave * (0.95 / jnp.where(peak > 0, peak, 1.0))


def auffusion_picture(mel: Array) -> Array:
    """Convert a log-mel [b l m] to Auffusion's picture [b m l 3], low bands at the bottom.

    log(1e-5) .. log(200) become 0 .. 1 linearly, and the three colours are equal.
    """
    low, high = np.log(_QUIETEST), np.log(_LOUDEST)
    grey = ((mel - low) / (high - low)).swapaxes(1, 2)[:, ::-1]
    return jnp.repeat(grey[..., None], 3, axis=-1)


def auffusion_mel(picture: Array) -> Array:
    """Convert Auffusion's picture [b m l c] to a log-mel [b l m]; only its first colour is read."""
    low, high = np.log(_QUIETEST), np.log(_LOUDEST)
    return picture[:, ::-1, :, 0].swapaxes(1, 2) * (high - low) + low
