# SPDX-License-Identifier: Apache-2.0
"""Pipelines saved by diffusers, converted, sampled with text and guidance: equal to a loop of the
PyTorch modules, from the prompts to the media files."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from mmdisco_jax.experiment import load_config
from mmdisco_jax.export.clips import read_all
from mmdisco_jax.guidance.joint import residual
from mmdisco_jax.media.cutting import iter_windows
from mmdisco_jax.porting.weights import save_weights
from mmdisco_jax.samplers.noise import initial, keyed, sample_keys
from mmdisco_jax.system import System
from mmdisco_jax.tasks.prompts import encode_prompts, repeated
from tests.golden.checker import relative_error
from tests.support import tiny_pipelines as tiny
from tests.support.experiments import run_mode, system_of
from tests.support.randoms import random_params

PROMPTS = ("a dog barks in the rain", "../../x 🔥", "a dog barks in the rain")
LOUDER = 3
_TO_TORCH = {"audio": (0, 3, 1, 2), "video": (0, 4, 1, 2, 3)}


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("pipelines")
    return folder, tiny.save(folder)


@pytest.fixture(scope="module")
def config(pipelines) -> Any:
    folder, _ = pipelines
    for name in ("audio", "video"):
        _convert(str(folder / name), f"{name}_ours", folder)
    config = tiny.config(".", folder / "audio_ours", folder / "video_ours")
    config.weights.discriminator = str(folder / "discriminator.safetensors")
    config.sample.variants.guided.scales.update(audio=50.0, video=50.0)
    config.sample.update(batch_size=2, prompts=PROMPTS, num_media=3)
    init = system_of(config).discriminator[1]
    params = random_params(jax.eval_shape(init, jax.random.key(0)))
    # A random discriminator says little: louder, so that no one could take it for rounding.
    last = params["network"]["last_linear"]["kernel"]
    last[...] = LOUDER * last[...]
    save_weights(config.weights.discriminator, params, {})
    return config


@pytest.fixture(scope="module")
def system(config) -> System:
    return system_of(config)


def _convert(source: str, target: str, workdir: Path) -> None:
    chosen: Any = load_config("configs/convert.py:diffusers")
    chosen.convert.update(source=source, target=target)
    run_mode("convert", chosen, workdir)


def _both(f: Any, g: float, x: Any, *texts: Any) -> Any:
    """uncond + g (cond - uncond), two calls."""
    cond, uncond = (f(x, text) for text in texts)
    return uncond + g * (cond - uncond)


def _bases(pipelines: dict[str, Any], t: int) -> dict[str, Any]:
    def audio(x: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return pipelines["audio"].unet(x, t, encoder_hidden_states=None, class_labels=text).sample

    def video(x: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        frames = text.repeat_interleave(x.shape[2], dim=0)
        return pipelines["video"].unet(x, t, encoder_hidden_states=frames).sample

    return {"audio": audio, "video": video}


def _reference(system: System, pipelines: dict[str, Any], guided: bool) -> dict[str, np.ndarray]:
    """DDPM with both kinds of guidance; the recorded noise is that of the samples' keys."""
    count = len(PROMPTS)
    texts = tiny.embed(pipelines, list(PROMPTS))
    empty = {m: x.expand(count, *x.shape[1:]) for m, x in tiny.embed(pipelines, [""]).items()}
    settings = system.experiment.variant("guided")
    keys = sample_keys(settings.seed, jnp.arange(count))
    x = {m: np.asarray(v) for m, v in initial(keys, tiny.SHAPES).items()}
    noise, schedules = keyed(keys), system.schedules
    r = jax.jit(residual(system.log_ratio, schedules))
    stride = 1000 // tiny.STEPS
    for step in range(tiny.STEPS):
        t = (tiny.STEPS - 1 - step) * stride + 1
        eps = {}
        for m, base in _bases(pipelines, t).items():
            to, g = _TO_TORCH[m], settings.text_scales[m]
            with torch.no_grad():
                moved = torch.from_numpy(np.ascontiguousarray(x[m].transpose(to)))
                out = _both(base, g, moved, texts[m], empty[m]).numpy()
            eps[m] = out.transpose(np.argsort(to))
        if guided:
            told = [{m: jnp.asarray(v.numpy()) for m, v in some.items()} for some in (texts, empty)]
            level, pair = jnp.full(count, t), {m: jnp.asarray(v) for m, v in x.items()}
            with_text, without = (r(pair, level, text) for text in told)
            for m, s in settings.scales.items():
                g = settings.text_scales[m]
                eps[m] = eps[m] + s * np.asarray(without[m] + g * (with_text[m] - without[m]))
        for m in x:
            abar = schedules[m].abar
            now, after = abar[t], abar[t - stride] if t >= stride else 1.0
            beta = 1 - now / after
            x0 = (x[m] - np.sqrt(1 - now) * eps[m]) / np.sqrt(now)
            mean = np.sqrt(after) * beta / (1 - now) * x0
            mean = mean + np.sqrt(1 - beta) * (1 - after) / (1 - now) * x[m]
            spread = np.sqrt(max((1 - after) / (1 - now) * beta, 1e-20))
            z = np.asarray(noise(jnp.int32(step), 1, m, x[m].shape))
            x[m] = (mean + spread * z).astype(np.float32)
    return x


def test_shapes_codecs_and_texts_are_those_of_the_files(system, pipelines):
    """Of the converted pipelines and of diffusers' own; the config states none of them."""
    folder = pipelines[0]
    as_saved = system_of(tiny.config(".", folder / "audio", folder / "video"))
    for one in (system, as_saved):
        assert one.shapes == tiny.SHAPES
        assert {m: f.text_shape for m, f in one.formats.items()} == tiny.TEXT_SHAPES
        assert one.bases["audio"].decoded_shapes() == {"audio": (8000,)}
        assert one.bases["video"].decoded_shapes() == {"video": (tiny.FRAMES, 16, 16, 3)}
        assert one.formats["audio"].clock.step == 0.02 and one.formats["video"].clock.step == 0.125
        texts = {m: np.asarray(f(["rain"])) for m, f in one.text_encoders.items()}
        wanted = tiny.embed(pipelines[1], ["rain"])
        for m, x in texts.items():
            assert x.shape == (1, *tiny.TEXT_SHAPES[m])
            assert relative_error(x, wanted[m].numpy()) < 1e-5
    digests = [{m: base.digest() for m, base in one.bases.items()} for one in (system, as_saved)]
    assert digests[0] == digests[1]


@pytest.mark.parametrize("variant", [pytest.param("independent", marks=pytest.mark.slow), "guided"])
def test_samples_are_those_of_the_pytorch_modules(system, pipelines, variant):
    prompts = encode_prompts(system)
    assert prompts is not None and prompts.num_samples == 3
    denoise = system.denoiser(variant, repeated(prompts.no_text, 3))
    indices = np.arange(3)
    got = system.sampler(variant).run(
        denoise,
        system.shapes,
        seed=system.experiment.sample.seed,
        indices=indices,
        cond=prompts.rows(indices),
    )
    wanted = _reference(system, pipelines[1], variant == "guided")
    for m, x in wanted.items():
        assert relative_error(np.asarray(got[m]), x) < 1e-3, m
    if variant == "guided":  # the guidance is no rounding
        plain = _reference(system, pipelines[1], False)
        assert all(relative_error(plain[m], wanted[m]) > 0.02 for m in plain)


def test_converted_pipelines_convert_back_bit_by_bit(config, pipelines, tmp_path):
    """And diffusers reads what comes out."""
    for name, saved in pipelines[1].items():
        _convert(config.weights[name], "back", tmp_path / name)
        back = type(saved).from_pretrained(tmp_path / name / "back")
        parts = ["text_encoder", "unet", "vae", *(["vocoder"] if name == "audio" else [])]
        modules = {k for k, v in back.components.items() if isinstance(v, torch.nn.Module)}
        assert modules == set(parts)  # the adapter is in the U-Net
        for part in parts:
            module = saved.components[part]
            found = back.components[part].state_dict()
            assert found.keys() == module.state_dict().keys(), part
            for key, tensor in module.state_dict().items():
                assert torch.equal(found[key], tensor), (part, key)


@pytest.mark.slow
def test_media_hold_what_the_pipelines_decode(config, system, pipelines, tmp_path):
    run_mode("sample", config, tmp_path)
    files = sorted(path.name for path in (tmp_path / "guided").glob("*.mp4"))
    dog, odd = "a_dog_barks_in_the_rain", "x"
    assert files == [f"00000-{dog}.mp4", f"00001-{odd}.mp4", f"00002-{dog}.mp4"]
    page = (tmp_path / "index.html").read_text()
    assert all(f"{v}/{files[0]}" in page for v in ("independent", "guided"))
    clips = read_all(tmp_path / "guided")
    latents = _reference(system, pipelines[1], True)
    video, audio = pipelines[1]["video"], pipelines[1]["audio"]
    with torch.no_grad():
        z = torch.from_numpy(latents["video"].reshape(-1, *latents["video"].shape[2:]))
        pictures = video.vae.decode(z.permute(0, 3, 1, 2) / video.vae.config.scaling_factor).sample
        z = torch.from_numpy(latents["audio"]).permute(0, 3, 1, 2)
        mel = audio.vae.decode(z / audio.vae.config.scaling_factor).sample[:, 0]
        wave = audio.vocoder(mel).numpy()[:, : clips["audio"].shape[1]]
    pixels = (pictures.permute(0, 2, 3, 1).numpy().clip(-1, 1) + 1) * 127.5
    error = np.abs(clips["video"].reshape(pixels.shape).astype(np.float32) - pixels)
    assert error.mean() < 0.5 + 0.1 and error.max() < 4  # rounding, and the latents' 1e-3
    assert relative_error(clips["audio"] / 32768, wave.clip(-1, 1)) < 0.01
    window = next(iter_windows(tmp_path / "guided" / files[0], system.clip_spec))
    loss = np.abs(window.video.astype(np.float32) - clips["video"][0]).mean()
    assert loss < 20  # what H.264 leaves of noise
