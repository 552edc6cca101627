# SPDX-License-Identifier: Apache-2.0
"""The front ends beyond the golden file: frames' places, batches, levels, pictures, errors."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmdisco_jax.codecs.audioldm_mel import (
    AUDIOLDM,
    AUFFUSION,
    auffusion_level,
    auffusion_mel,
    auffusion_picture,
    log_mel,
)


def test_a_tone_peaks_in_its_band_and_silence_is_the_floor():
    seconds = np.arange(16_000) / 16_000
    tone = np.sin(2 * np.pi * 1000 * seconds) * (seconds < 0.5)
    mel = np.asarray(jax.jit(lambda x: log_mel(AUDIOLDM, x))(tone.astype(np.float32)[None]))[0]
    assert mel.shape == (100, 64)
    # Slaney's scale is linear up to 1 kHz, its 15th step, and then 27 / log 6.4 steps per e-fold.
    top = 15 + 27 * np.log(8) / np.log(6.4)
    band = 15 / (top / 65) - 1
    assert abs(mel[:45].argmax(1) - band).max() <= 1
    np.testing.assert_allclose(mel[55:], np.log(1e-5), rtol=1e-6)


@pytest.mark.parametrize("samples", [1600, 1601, 1759])
def test_whole_hops_give_frames(samples: int):
    wave = np.random.default_rng(0).standard_normal((2, samples)).astype(np.float32)
    both = log_mel(AUDIOLDM, wave)
    assert both.shape == (2, 10, 64)
    np.testing.assert_allclose(both[1:], log_mel(AUDIOLDM, wave[1:]), rtol=1e-5, atol=1e-5)


def test_a_frame_is_the_spectrum_around_its_hop():
    """In float64 by the formula, for one frame far from the ends."""
    spec = dataclasses.replace(AUFFUSION, num_mels=40)
    wave = np.random.default_rng(0).standard_normal(8000)
    start = 20 * 160 - (2048 - 160) // 2
    hann = np.sin(np.pi * np.arange(1024) / 1024) ** 2
    cut = wave[start + 512 : start + 512 + 1024] * hann
    phase = np.exp(-2j * np.pi * np.outer(np.arange(1025), np.arange(1024)) / 2048)
    want = np.log(np.sqrt(np.abs(phase @ cut) ** 2 + 1e-9) @ spec.basis)
    got = log_mel(spec, wave.astype(np.float32)[None])[0, 20]
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_auffusion_pictures_hold_low_bands_at_the_bottom():
    mel = jnp.full((1, 5, 4), np.log(1e-5)).at[0, 2, 0].set(np.log(200.0))
    picture = np.asarray(auffusion_picture(mel))
    assert picture.shape == (1, 4, 5, 3)
    want = np.zeros((4, 5))
    want[3, 2] = 1
    np.testing.assert_allclose(picture[0], np.repeat(want[..., None], 3, -1), atol=1e-6)
    np.testing.assert_allclose(auffusion_mel(jnp.asarray(picture)), mel, rtol=1e-5)


def test_auffusion_level():
    wave = jnp.asarray([[0.1, -0.2], [0.0, 0.0]])
    np.testing.assert_allclose(auffusion_level(wave), [[0.475, -0.95], [0, 0]], rtol=1e-6)


def test_bad_waves_and_settings_are_named():
    with pytest.raises(ValueError, match="dtype int16; scale it to float"):
        log_mel(AUDIOLDM, np.zeros((1, 16_000), np.int16))
    with pytest.raises(ValueError, match=r"\(1, 432\); .* more than 432 samples"):
        log_mel(AUDIOLDM, np.zeros((1, 432), np.float32))
    with pytest.raises(ValueError, match=r"\(16000,\); it must be \[b n\]"):
        log_mel(AUDIOLDM, np.zeros(16_000, np.float32))
    with pytest.raises(ValueError, match="hop_length 160, win_length 2048 and n_fft 1024"):
        dataclasses.replace(AUDIOLDM, win_length=2048)
    with pytest.raises(ValueError, match=r"must rise within 0 \.\. 8000"):
        dataclasses.replace(AUDIOLDM, fmax_hz=9000)
