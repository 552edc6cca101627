# SPDX-License-Identifier: Apache-2.0
"""Codecs: log-mel against librosa, and sound that survives the way there and back."""

import dataclasses

import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from mmdisco_jax.codecs.log_mel import LogMel
from mmdisco_jax.codecs.pixels import Pixels
from mmdisco_jax.worlds.bounce import physics

CODEC = LogMel(
    sample_rate_hz=16_000,
    num_frames=64,
    num_mels=32,
    hop_length=500,
    n_fft=1024,
    low=-4.5,
    high=0.8,
    mean=-0.85,
    scale=0.4,
)


def test_encode_is_librosas_mel_spectrogram():
    audio = physics.simulate(0, 3).audio
    got = np.asarray(CODEC.encode(jnp.asarray(audio[None])))[0, :, :, 0]
    mel = librosa.feature.melspectrogram(
        y=audio / 32768.0,
        sr=16_000,
        n_fft=1024,
        hop_length=500,
        n_mels=32,
        power=1.0,
        pad_mode="constant",
    )[:, :64]
    unit = (np.log10(np.maximum(mel, 1e-8)) + 4.5) / 5.3 * 2 - 1
    want = (np.clip(unit, -1, 1).T + 0.85) / 0.4
    np.testing.assert_allclose(got, want, atol=2e-3)


def test_decoded_sound_has_the_encoded_spectrogram():
    audio = physics.simulate(0, 5).audio
    x = np.asarray(CODEC.encode(jnp.asarray(audio[None])))
    wave = CODEC.decode(x)
    assert wave.shape == (1, 32_000)
    assert wave.dtype == np.float32
    again = np.asarray(CODEC.encode(jnp.asarray(np.rint(wave * 32767).astype(np.int16))))
    loud = x > 1.0  # where there is a sound at all
    assert np.abs(again - x)[loud].mean() < 0.15 * np.abs(x[loud]).mean()
    np.testing.assert_array_equal(CODEC.decode(x), wave)  # deterministic


def test_silence_stays_silent():
    x = np.asarray(CODEC.encode(jnp.zeros((1, 32_000), jnp.int16)))
    assert np.abs(CODEC.decode(x)).max() < 1e-6


def test_bad_lengths_and_settings_are_named():
    with pytest.raises(ValueError, match=r"\[b, 32000\] samples, got \(1, 31999\)"):
        CODEC.encode(jnp.zeros((1, 31_999), jnp.int16))
    with pytest.raises(ValueError, match="low < high"):
        dataclasses.replace(CODEC, low=1.0)
    with pytest.raises(ValueError, match="at most 512"):
        dataclasses.replace(CODEC, hop_length=600)


def test_pixels_come_back_exactly():
    frames = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16, 1)
    x = Pixels().encode(jnp.asarray(frames))
    assert float(x.min()) == -1.0
    assert float(x.max()) == 1.0
    np.testing.assert_array_equal(Pixels().decode(x), frames)
    beyond = np.array([2.0, -7.0]).reshape(1, 1, 1, 2, 1)
    assert Pixels().decode(beyond).ravel().tolist() == [255, 0]
