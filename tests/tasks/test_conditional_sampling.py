# SPDX-License-Identifier: Apache-2.0
"""One modality from media files, the other sampled to it, by a tiny joint model."""

from typing import Any

import av
import jax
import numpy as np
import pytest

from configs import bounce
from mmdisco_jax.experiment import Experiment, load_config
from mmdisco_jax.export.clips import read_all
from mmdisco_jax.export.media import write_mp4
from mmdisco_jax.porting.weights import save_weights
from mmdisco_jax.system import System
from mmdisco_jax.tasks import sample
from mmdisco_jax.tasks.conditions import Given, read_given
from mmdisco_jax.worlds.bounce.physics import simulate
from tests.support.randoms import random_params
from tests.support.tiny_joint import with_tiny_joint

SILENT = 1  # the number of the file without sound


def tiny() -> Any:
    """The joint config with a network of few layers."""
    config = with_tiny_joint(load_config("configs/bounce_mm_diffusion.py"))
    config.sample.update({"num_samples": 3, "batch_size": 2, "num_steps": 2, "num_media": 1})
    return config


def system_of(config: Any) -> System:
    return System(Experiment.from_config(config))


def given_of(config: Any, variant: str) -> Given | None:
    system = system_of(config)
    return read_given(system, system.experiment.variant(variant).condition)


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    for i in range(2):
        clip = simulate(0, i)
        wave = None if i == SILENT else clip.audio.astype(np.float32) / 32768
        write_mp4(folder / f"{i}.mp4", clip.video, wave, fps=8, sample_rate_hz=16_000)
    return folder


@pytest.fixture(scope="module")
def config(tmp_path_factory, media):
    config = tiny()
    _, init = system_of(config).definitions["joint"]
    params = random_params(jax.eval_shape(init, jax.random.key(0)), 0)
    with config.unlocked():
        config.weights.joint = str(tmp_path_factory.mktemp("w") / "joint.safetensors")
        video = {"given": "video", "media": str(media)}
        audio = {"given": "audio", "media": str(media / "0.mp4")}
        config.sample.variants = {
            "replaced": {"condition": video},
            "moved": {"condition": video | {"weight": 50.0}},
            "seen": {"condition": audio},
        }
    save_weights(config.weights.joint, params, {})
    return config


@pytest.fixture(scope="module")
def sampled(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("samples")
    sample.run(system_of(config), workdir)
    return {v: read_all(workdir / v) for v in config.sample.variants}, workdir


def test_what_is_given_is_written_and_the_rest_is_sampled(sampled, config):
    clips, workdir = sampled
    given = given_of(config, "replaced")
    assert given is not None and [name for name, _ in given.files] == ["0.mp4", "1.mp4"]
    # Two files, three samples: the third begins anew, with noise of its own.
    np.testing.assert_array_equal(clips["replaced"]["video"], given.clips[[0, 1, 0]])
    assert np.abs(given.clips[0].astype(int) - simulate(0, 0).video).mean() < 4
    sound = clips["replaced"]["audio"]
    assert sound.shape == (3, 32_000) and np.any(sound[0] != sound[2])
    heard = clips["seen"]["audio"]
    np.testing.assert_array_equal(heard[0], heard[1])
    assert np.corrcoef(heard[0], simulate(0, 0).audio)[0, 1] > 0.95  # AAC
    assert np.any(clips["seen"]["video"][0] != clips["seen"]["video"][1])
    with av.open(str(workdir / "replaced" / "00000.mp4")) as made:
        assert made.streams.audio and made.streams.video


def test_the_sound_knows_the_picture(sampled, config, tmp_path, media):
    """Another picture, another sound; the gradient moves it as well."""
    clips, _ = sampled
    assert np.any(clips["moved"]["audio"] != clips["replaced"]["audio"])
    other = config.copy_and_resolve_references()
    with other.unlocked():
        swapped = {"given": "video", "media": str(media / "1.mp4")}
        other.sample.variants = {"replaced": {"condition": swapped}}
        other.sample.batch_size = 3
    sample.run(system_of(other), tmp_path)
    sound, before = read_all(tmp_path / "replaced")["audio"], clips["replaced"]["audio"]
    assert np.any(sound[0] != before[0])
    # Sample 1 had this picture before: the same sound, whatever its batch.
    worst = np.abs(sound[1].astype(int) - before[1]).max()
    assert worst <= 2, worst


def test_other_media_in_the_same_workdir_are_refused(sampled, config, media):
    other = config.copy_and_resolve_references()
    with other.unlocked():
        other.sample.variants.seen.condition.media = str(media)
    with pytest.raises(ValueError, match=r"1 of 2 files.*1\.mp4: has no sound track"):
        sample.run(system_of(other), sampled[1])
    with other.unlocked():
        other.sample.variants.replaced.condition.media = str(media / "0.mp4")
        del other.sample.variants.seen
    with pytest.raises(ValueError, match="samples of another config"):
        sample.run(system_of(other), sampled[1])


def test_half_a_condition_is_refused(config):
    other: Any = config.copy_and_resolve_references()
    with other.unlocked():
        half = {"half": {"condition": {"given": "video", "media": ""}}}
        other.sample.update({"variants": half})
    with pytest.raises(ValueError, match=r"given='video' and media=''"):
        given_of(other, "half")


def test_a_condition_and_the_models_have_the_length_of_the_clip(config, media):
    """One section decides both, so that they cannot disagree."""
    other: Any = config.copy_and_resolve_references()
    other.clip.seconds = 1.0
    given, shapes = given_of(other, "replaced"), system_of(other).shapes
    assert given is not None and given.clips.shape[:2] == (2, 8)
    assert given.latents.shape[1:] == shapes["video"] and shapes["video"][0] == 8
    assert shapes["audio"] == (400, 40)


def test_two_models_on_their_own_cannot_be_conditioned():
    config: Any = bounce.get_config()
    condition = {"given": "video", "media": "x"}
    config.sample.variants = {"alone": {"condition": condition}}
    with pytest.raises(ValueError, match=r"know nothing of each other.*guidance"):
        system_of(config).sampler("alone")
