# SPDX-License-Identifier: Apache-2.0
"""Training a joint base by the command: what it logs, and whose schedule its weights may serve."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs import bounce
from mmdisco_jax.experiment import Experiment, load_config
from mmdisco_jax.export.clips import read_all
from mmdisco_jax.media.prepare import prepare
from mmdisco_jax.porting.weights import read_metadata
from mmdisco_jax.system import System
from mmdisco_jax.tasks import sample, train
from mmdisco_jax.training.checkpoints import CheckpointError
from mmdisco_jax.training.metrics_log import read_metrics
from tests.support.tiny_joint import with_tiny_joint

LEVELS = 100


def system_of(config: Any) -> System:
    return System(Experiment.from_config(config))


def loss_of(config: Any) -> Any:
    """The training loss of what the config trains."""
    return system_of(config).loss(config.train.target)


def _with_levels(config: Any, number: int) -> Any:
    config = config.copy_and_resolve_references()
    for schedule in config.bases.joint.schedule.values():
        schedule.num_timesteps = number
    return config


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Any:
    """Of a model of 100 levels, trained where `config.weights.joint` says."""
    base = tmp_path_factory.mktemp("joint")
    config = with_tiny_joint(load_config("configs/bounce_mm_diffusion.py"), learn_sigma=True)
    with config.unlocked():
        config.sample.variants = {"joint": {}}
    config.data.dir = str(base / "data")
    config.data.options.update(num_train=8, num_test=2)
    config.train.update(num_steps=3, warmup_steps=1, batch_size=4, log_every=1, save_every=3)
    config.train.time_sampler, config.train.time.focus = "loss_second_moment", 0.0
    config.sample.update(num_samples=1, batch_size=1, num_steps=2, num_media=0)
    config.weights.joint = str(base / "run" / "weights.safetensors")
    prepare("bounce", config.data.dir, **config.data.options)
    config = _with_levels(config, LEVELS)
    train.run(system_of(config), base / "run")
    return config


def test_the_losses_of_the_modalities_are_logged_and_sum_to_the_loss(config):
    rows = read_metrics(Path(config.weights.joint).parent)
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert row["loss"] == pytest.approx(row["loss_audio"] + row["loss_video"], rel=1e-5)
        for m in ("audio", "video"):
            assert np.isfinite(row[f"vb_{m}"]) and row[f"vb_{m}"] < row[f"loss_{m}"]
        assert row["full_levels"] == 0


def test_weights_of_other_schedules_are_refused_unless_forced(config, tmp_path):
    recorded = json.loads(read_metadata(config.weights.joint)["schedules"])
    assert {m: row["section"] for m, row in recorded.items()} == (
        config.bases.joint.schedule.to_dict()
    )
    assert system_of(config).base_params["joint"]
    other = _with_levels(config, 1000)
    with pytest.raises(ValueError, match="is of another noise schedule") as caught:
        sample.run(system_of(other), tmp_path)
    message = str(caught.value)
    for number in (LEVELS, 1000):
        assert re.search(rf'"num_timesteps": {number}[,}}]', message)
    assert "audio: trained with" in message and "video" in message
    assert "config.sample.force_schedule=True" in message and not list(tmp_path.iterdir())
    other.sample.force_schedule = True
    sample.run(system_of(other), tmp_path)
    assert list((tmp_path / "joint").glob("samples_*.npz"))
    part = config.copy_and_resolve_references()
    part.bases.joint.schedule.video.beta_end = 0.03
    with pytest.raises(ValueError, match=r"video: trained.*0.02.*has.*0.03") as caught:
        _ = system_of(part).base_params
    assert "audio: trained" not in str(caught.value)


def test_a_learned_variance_is_sampled_with(config, tmp_path):
    config = config.copy_and_resolve_references()
    config.sample.update(grid="levels", spacing="linspace", model_time="continuous", num_steps=4)
    learned = {"name": "ddpm", "variance": "learned_range", "clip": 1.0}
    config.sample.variants = {
        name: {"samplers": {m: learned | {"variance": v} for m, v in chosen.items()}}
        for name, chosen in {
            "learned": {"audio": "learned_range", "video": "learned_range"},
            "one": {"audio": "learned_range", "video": "fixed_small"},
            "small": {"audio": "fixed_small", "video": "fixed_small"},
        }.items()
    }
    sample.run(system_of(config), tmp_path)
    one, small, both = (read_all(tmp_path / name) for name in ("one", "small", "learned"))
    # Its sound's noise differs; and through the sound, what the model says of the picture.
    assert not np.array_equal(one["audio"], small["audio"])
    assert not np.array_equal(both["video"], one["video"])
    with config.unlocked():
        variants: Any = config.sample.variants
        variants["learned"]["scales"] = {"audio": 1.0, "video": 1.0}
    with pytest.raises(ValueError, match=r"'learned' guides the noise.*learned variance"):
        system_of(config).sampler("learned")
    config.bases.joint.learn_sigma = False
    with pytest.raises(ValueError, match=r"\['audio'\] take the base model's variance .* fixed"):
        system_of(config).sampler("one")


def test_noise_levels_are_drawn_as_the_config_says_or_not_at_all(config):
    for name in ("bounce", "bounce_mm_diffusion", "folder", "landscape_mm_diffusion"):
        given: Any = load_config(name)
        assert given.train.time_sampler == "uniform"
        assert given.sample.force_schedule is False
    uniform = config.copy_and_resolve_references()
    uniform.train.time_sampler = "uniform"
    assert loss_of(uniform).history is None
    assert loss_of(config).history.losses.shape == (LEVELS, 10)
    with pytest.raises(CheckpointError, match=r"history.losses is .* there and absent here"):
        train.run(system_of(uniform), Path(config.weights.joint).parent)
    focused = config.copy_and_resolve_references()
    focused.train.time.update(focus=0.5, low=10, high=20)
    with pytest.raises(ValueError, match=r"train.time.focus=0.5 is for uniform noise levels"):
        loss_of(focused)
    unknown = config.copy_and_resolve_references()
    unknown.train.time_sampler = "loss-second-moment"
    with pytest.raises(ValueError, match="time_sampler 'loss-second-moment': choose"):
        loss_of(unknown)
    for target in bounce.TARGETS:
        single = load_config(f"bounce:{target}", {"train.time_sampler": "loss_second_moment"})
        with pytest.raises(ValueError, match=f"joint base model, but train.target is '{target}'"):
            loss_of(single)
