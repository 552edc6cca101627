# SPDX-License-Identifier: Apache-2.0
"""Codecs that are networks: the whole against the PyTorch modules, chunks, weights as arguments."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
from flax import nnx

from mmdisco_jax.codecs import hifi_gan
from mmdisco_jax.codecs.audioldm_mel import LogMelSpec
from mmdisco_jax.codecs.autoencoder_kl import AutoencoderKL, spec_from_config
from mmdisco_jax.codecs.chunked_map import map_chunks
from mmdisco_jax.codecs.vae_frames import VaeFrames
from mmdisco_jax.codecs.vae_mel import VaeMel
from mmdisco_jax.codecs.weighted import Loaded
from mmdisco_jax.nn.init import skeleton
from mmdisco_jax.porting.load import from_torch
from tests.codecs import test_autoencoder_kl, test_hifi_gan
from tests.golden.checker import relative_error
from tests.support.codec_references import randomised, tensors
from tests.support.randoms import random_params

IMAGES = {"block_out_channels": (4, 8), "norm_num_groups": 2, "shift_factor": 0.1}
SPECTROGRAMS = IMAGES | {"in_channels": 1, "out_channels": 1, "latent_channels": 3}
VOCODER = {
    "model_in_dim": 16,
    "upsample_initial_channel": 8,
    "upsample_rates": [5, 4],
    "upsample_kernel_sizes": [16, 8],
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3]],
    "normalize_before": True,
}
MEL = LogMelSpec(
    sample_rate_hz=16_000,
    n_fft=128,
    win_length=128,
    hop_length=20,
    num_mels=16,
    fmin_hz=0,
    fmax_hz=8000,
)


def images(seed: int = 0) -> Any:
    return randomised(test_autoencoder_kl.reference(test_autoencoder_kl.complete(IMAGES)), seed)


def frames_codec(**changes: Any) -> VaeFrames:
    return VaeFrames(spec=spec_from_config(test_autoencoder_kl.complete(IMAGES)), **changes)


def mel_codec(num_samples: int = 330, **changes: Any) -> VaeMel:
    return VaeMel(
        vae=spec_from_config(test_autoencoder_kl.complete(SPECTROGRAMS)),
        vocoder=hifi_gan.spec_from_config(VOCODER),
        mel=MEL,
        num_samples=num_samples,
        **changes,
    )


def test_frames_to_latents_to_frames():
    theirs, torch = images(), __import__("torch")
    codec = frames_codec(chunk_frames=2)
    loaded = Loaded(codec=codec, params=from_torch(codec.abstract, tensors(theirs)))
    clips = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 12, 3), dtype=np.uint8)
    with torch.no_grad():
        pixels = torch.tensor(clips.reshape(6, 8, 12, 3).transpose(0, 3, 1, 2))
        mean = theirs.encode(pixels / 127.5 - 1).latent_dist.mean
        seen = (mean - theirs.config.shift_factor) * theirs.config.scaling_factor
        back = theirs.decode(seen / theirs.config.scaling_factor + theirs.config.shift_factor)
    want = seen.numpy().transpose(0, 2, 3, 1).reshape(2, 3, 4, 6, 4)
    latents = loaded.encode(clips)
    assert latents.dtype == jnp.float32
    assert relative_error(latents, want) < 1e-5
    frames = np.asarray(loaded.decode(latents))
    exact = (back.sample.numpy().transpose(0, 2, 3, 1).reshape(2, 3, 8, 12, 3) + 1) * 127.5
    assert frames.dtype == np.uint8
    assert frames.shape == clips.shape
    assert np.abs(frames - np.clip(exact, 0, 255)).max() < 0.501  # rounded to nearest
    assert {0, 255} <= set(frames.ravel().tolist())  # and clipped


def _log_mel(torch: Any, wave: np.ndarray) -> Any:
    """By PyTorch's transform: Hann window, mirrored ends, logarithm above 1e-5; [b l m]."""
    margin = (128 - 20) // 2
    padded = torch.nn.functional.pad(torch.tensor(wave), (margin, margin), mode="reflect")
    window = torch.hann_window(128)
    spectrum = torch.stft(padded, 128, 20, window=window, center=False, return_complex=True)
    basis = librosa.filters.mel(sr=16_000, n_fft=128, n_mels=16, fmin=0, fmax=8000)
    return torch.log(torch.clamp(torch.tensor(basis) @ spectrum.abs(), min=1e-5)).mT


def test_wave_to_latent_to_wave():
    complete = test_autoencoder_kl.complete(SPECTROGRAMS)
    vae = randomised(test_autoencoder_kl.reference(complete))
    vocoder, torch = randomised(test_hifi_gan.reference(VOCODER), 1), __import__("torch")
    codec = mel_codec(chunk_clips=1)
    assert codec.latent_shape() == (9, 8, 3)
    loaded = Loaded(
        codec=codec,
        params={
            "vae": from_torch(codec.abstract["vae"], tensors(vae)),
            "vocoder": from_torch(
                codec.abstract["vocoder"], tensors(vocoder), overrides=hifi_gan.OVERRIDES
            ),
        },
    )
    sound = np.random.default_rng(0).integers(-9000, 9000, (2, 330)).astype(np.int16)
    wave = np.pad(sound.astype(np.float32) / 32768, ((0, 0), (0, 30)))  # 18 frames, 9 latents
    scale, shift = complete.get("scaling_factor", 0.18215), complete["shift_factor"]
    with torch.no_grad():
        mean = vae.encode(_log_mel(torch, wave)[:, None]).latent_dist.mean
        seen = (mean - shift) * scale
        heard = vocoder(vae.decode(seen / scale + shift).sample[:, 0]).numpy()
    latents = loaded.encode(sound)
    assert relative_error(latents, seen.numpy().transpose(0, 2, 3, 1)) < 1e-4
    np.testing.assert_allclose(loaded.encode(sound.astype(np.float32) / 32768), latents, rtol=1e-6)
    got = loaded.decode(seen.numpy().transpose(0, 2, 3, 1))
    assert heard.shape == (2, 364)  # 18 * 20 samples, and the first window's odd one, four times
    assert got.shape == (2, 330)
    assert relative_error(got, heard[:, :330]) < 1e-4


def test_noise_gives_samples_of_the_posterior():
    codec = frames_codec()
    params = random_params(codec.abstract)
    clips = np.random.default_rng(0).integers(0, 256, (1, 2, 4, 4, 3), dtype=np.uint8)
    noise = np.random.default_rng(1).standard_normal((1, 2, 2, 2, 4)).astype(np.float32)
    run = jax.jit(codec.encode)
    mean, once, twice = (run(params, clips, n * noise) for n in (0, 1, 2))
    std = (once - mean) / noise / codec.spec.scaling_factor
    assert float(std.min()) > 0
    np.testing.assert_allclose(twice - mean, 2 * (once - mean), atol=1e-4)


def test_chunks_equal_the_whole_in_the_memory_of_one():
    graphdef, abstract = skeleton(functools.partial(AutoencoderKL, frames_codec().spec))
    params = random_params(abstract)
    latents = np.random.default_rng(0).standard_normal((8, 8, 8, 4)).astype(np.float32)

    def program(chunk: int | None) -> Any:
        def run(params, latents):
            return map_chunks(nnx.merge(graphdef, params).decode, latents, chunk)

        return jax.jit(run).lower(params, latents).compile()

    whole, pieces = program(None), program(3)  # the third has but two
    memory = [p.memory_analysis().temp_size_in_bytes for p in (whole, pieces)]
    assert memory[1] < 0.6 * memory[0]
    assert relative_error(pieces(params, latents), whole(params, latents)) < 1e-5


@pytest.mark.parametrize("chunk", [None, 1, 3, 5, 9])
def test_map_chunks_is_the_function(chunk: int | None):
    x = jnp.arange(10.0).reshape(5, 2)
    got = map_chunks(lambda x: jnp.sin(x) @ jnp.ones((2, 3)), x, chunk)
    np.testing.assert_allclose(got, jnp.sin(x) @ jnp.ones((2, 3)), atol=1e-5)


def test_weights_are_arguments():
    """New weights need no new program, and a codec goes through jit as a pytree of them."""
    traces = []

    class Scale:
        def decode(self, params, x):
            traces.append(x)
            return params["factor"] * x

        encode = decode

    codec = Scale()
    two, five = (Loaded(codec=codec, params={"factor": jnp.asarray(f)}) for f in (2.0, 5.0))
    assert [float(c.decode(3.0)) for c in (two, five, two)] == [6.0, 15.0, 6.0]
    assert [float(c.encode(3.0)) for c in (five, two)] == [15.0, 6.0]
    assert len(traces) == 2  # one program each way
    outside = jax.jit(lambda codec, x: codec.decode(x))
    assert [float(outside(c, 3.0)) for c in (two, five)] == [6.0, 15.0]
    assert (mel_codec(), hash(mel_codec())) == (mel_codec(), hash(mel_codec()))


def test_released_shapes():
    """Two seconds of sound and 16 frames, as the discriminator of AudioLDM and AnimateDiff."""
    mel = VaeMel(
        vae=spec_from_config(test_autoencoder_kl.AUDIOLDM),
        vocoder=hifi_gan.spec_from_config(test_hifi_gan.AUDIOLDM),
        num_samples=32_000,
    )
    frames = VaeFrames(spec=spec_from_config(test_autoencoder_kl.SD15), chunk_frames=4)
    sound = jax.ShapeDtypeStruct((2, 32_000), jnp.int16)
    video = jax.ShapeDtypeStruct((2, 16, 256, 256, 3), jnp.uint8)
    latents = [
        jax.eval_shape(codec.encode, codec.abstract, clip)
        for codec, clip in ((mel, sound), (frames, video))
    ]
    assert [z.shape for z in latents] == [(2, 50, 16, 8), (2, 16, 32, 32, 4)]
    assert latents[0].shape[1:] == mel.latent_shape()
    back = [
        jax.eval_shape(codec.decode, codec.abstract, z)
        for codec, z in zip((mel, frames), latents, strict=True)
    ]
    assert [x.shape for x in back] == [sound.shape, video.shape]


def test_what_does_not_fit_is_named():
    frames, mel = frames_codec(), mel_codec()
    with pytest.raises(ValueError, match=r"\(2, 4, 4, 3\); it must be \[b f h w c\]"):
        frames.encode(frames.abstract, jnp.zeros((2, 4, 4, 3), jnp.uint8))
    with pytest.raises(ValueError, match="frames have dtype float32, but must be uint8"):
        frames.encode(frames.abstract, jnp.zeros((1, 2, 4, 4, 3)))
    with pytest.raises(ValueError, match="reads 1 channels and gives 1, but frames have 3"):
        VaeFrames(spec=mel.vae)
    with pytest.raises(ValueError, match="reads 3 channels and gives 3, but a spectrogram has 1"):
        dataclasses.replace(mel, vae=frames.spec)
    with pytest.raises(ValueError, match=r"sound has shape \(1, 331\); it must be \[b 330\]"):
        mel.encode(mel.abstract, jnp.zeros((1, 331), jnp.int16))
    with pytest.raises(ValueError, match=r"\(1, 8, 8, 3\); 330 samples have \[b, 9, 8, 3\]"):
        mel.decode(mel.abstract, jnp.zeros((1, 8, 8, 3)))
    with pytest.raises(ValueError, match="has 20 samples a frame, the spectrogram 10"):
        dataclasses.replace(mel, mel=dataclasses.replace(MEL, hop_length=10))
    with pytest.raises(ValueError, match="has 16 mel bands, the spectrogram 8"):
        dataclasses.replace(mel, mel=dataclasses.replace(MEL, num_mels=8))
    with pytest.raises(ValueError, match="16000 samples a second, the spectrogram 32000"):
        dataclasses.replace(mel, mel=dataclasses.replace(MEL, sample_rate_hz=32_000))
    with pytest.raises(ValueError, match="num_samples is 0"):
        dataclasses.replace(mel, num_samples=0)
    with pytest.raises(ValueError, match="chunk is 0; it must be at least 1"):
        map_chunks(jnp.sin, jnp.ones(3), 0)
