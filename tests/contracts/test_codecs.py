# SPDX-License-Identifier: Apache-2.0
"""Contract of codecs: what they say of a clip is what they make of it."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmdisco_jax.base_models.api import as_codec
from mmdisco_jax.codecs import CODECS
from mmdisco_jax.codecs.autoencoder_kl import AutoencoderKLSpec
from mmdisco_jax.codecs.hifi_gan import HifiGanSpec
from mmdisco_jax.codecs.vae_frames import VaeFrames
from mmdisco_jax.codecs.vae_mel import VaeMel
from mmdisco_jax.types import ClipFormat

CLIP = ClipFormat(seconds=1.0, fps=4, height=16, width=32, sample_rate_hz=16_000)
OUTSIDE = "tests.support.outside.codec"
SETTINGS: dict[str, dict[str, Any]] = {
    "pixels": {"name": "pixels", "patch": 4},
    "waveform": {"name": "waveform", "scale": 0.5, "fold": 100},
    "log_mel": {"name": "log_mel", "num_mels": 16, "low": -4.5, "high": 0.8},
    "outside colours": {"name": f"{OUTSIDE}:FrameColour"},
    "outside volumes": {"name": f"{OUTSIDE}:Volume"},
}
VIDEO = ("pixels", "outside colours", "vae_frames")
NETWORKS = {
    "vae_frames": VaeFrames(
        spec=AutoencoderKLSpec(
            in_channels=3,
            out_channels=3,
            latent_channels=4,
            block_out_channels=(4, 8),
            layers_per_block=1,
            norm_num_groups=2,
        )
    ),
    "vae_mel": VaeMel(
        vae=AutoencoderKLSpec(
            in_channels=1,
            out_channels=1,
            latent_channels=8,
            block_out_channels=(4, 4, 8),
            layers_per_block=1,
            norm_num_groups=2,
        ),
        vocoder=HifiGanSpec(
            model_in_dim=64,
            sampling_rate=16_000,
            upsample_initial_channel=8,
            upsample_rates=(5, 8, 4),
            upsample_kernel_sizes=(15, 16, 8),
            resblock_kernel_sizes=(3,),
            resblock_dilation_sizes=((1, 3),),
        ),
        num_samples=CLIP.num_samples,
    ),
}


@functools.cache
def codec(name: str) -> Any:
    return as_codec(SETTINGS[name], CLIP)


def clips(name: str, batch: int = 2) -> np.ndarray:
    rng = np.random.default_rng(0)
    if name in VIDEO:
        shape = (batch, CLIP.num_frames, CLIP.height, CLIP.width, 3)
        return rng.integers(0, 256, shape).astype(np.uint8)
    return rng.integers(-20_000, 20_000, (batch, CLIP.num_samples)).astype(np.int16)


def test_every_registered_codec_is_tested_here():
    assert {n for n in (*SETTINGS, *NETWORKS) if " " not in n} == set(CODECS.names())


@pytest.mark.parametrize("name", SETTINGS)
def test_latents_and_decoded_clips_have_the_stated_shapes(name):
    x = clips(name)
    latent = jax.jit(codec(name).encode)(x)
    assert latent.shape[1:] == codec(name).latent_shape(CLIP)
    assert latent.dtype == jnp.float32 and np.isfinite(latent).all()
    np.testing.assert_allclose(codec(name).encode(x), latent, atol=1e-4)
    decoded = np.asarray(codec(name).decode(np.asarray(latent)))
    assert decoded.shape == x.shape
    assert decoded.dtype in (np.uint8, np.int16, np.float32)
    if decoded.dtype == np.float32:
        assert np.abs(decoded).max() <= 1


@pytest.mark.parametrize("name", SETTINGS)
def test_any_latent_is_decoded_to_a_clip(name):
    """Samples are not limited to what `encode` gives."""
    rng = np.random.default_rng(1)
    latent = rng.normal(0, 3, (1, *codec(name).latent_shape(CLIP))).astype(np.float32)
    decoded = np.asarray(codec(name).decode(latent))
    assert decoded.shape == clips(name, batch=1).shape and np.isfinite(decoded).all()


@pytest.mark.parametrize("name", [*SETTINGS, *NETWORKS])
def test_frames_are_centred_inside_the_clip(name):
    one = NETWORKS[name] if name in NETWORKS else codec(name)
    frames, clock = one.latent_shape(CLIP)[0], one.clock(CLIP)
    centres = clock.centres(frames)
    assert centres[0] >= 0 and centres[-1] <= CLIP.seconds
    assert clock.step * frames == pytest.approx(CLIP.seconds)


@pytest.mark.parametrize("name", NETWORKS)
def test_codecs_that_are_networks_state_shapes_before_weights(name):
    one, x = NETWORKS[name], clips(name)
    latent = jax.eval_shape(one.encode, one.abstract, x)
    assert latent.shape == (len(x), *one.latent_shape(CLIP)) and latent.dtype == jnp.float32
    assert jax.eval_shape(one.decode, one.abstract, latent).shape == x.shape


@pytest.mark.parametrize("name", NETWORKS)
def test_a_codec_that_is_a_network_is_not_made_from_settings(name):
    with pytest.raises(ValueError, match="is a network"):
        as_codec({"name": name}, CLIP)


@pytest.mark.parametrize("name", SETTINGS)
def test_unknown_settings_are_named(name):
    with pytest.raises(ValueError, match="nonsense"):
        as_codec({**SETTINGS[name], "nonsense": 1}, CLIP)
