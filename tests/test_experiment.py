# SPDX-License-Identifier: Apache-2.0
"""Experiments from configs: completed, merged, typed, and refused where a key says nothing."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from configs import bounce, bounce_mm_diffusion
from mmdisco_jax.base_models.patch_transformer import PatchTransformerBase
from mmdisco_jax.experiment import Experiment, complete, load_config
from mmdisco_jax.resources import cache_dir, config_names
from mmdisco_jax.samplers.ddim import DDIM
from mmdisco_jax.samplers.dpm_solver import DPMSolver
from mmdisco_jax.sections import Training
from mmdisco_jax.settings import defaults_of
from mmdisco_jax.system import load
from tests.support.tiny_joint import NAME as TINY_JOINT

SMALL: dict[str, Any] = {
    "clip": {"seconds": 1.0, "fps": 4, "height": 8, "width": 8, "sample_rate_hz": 160},
    "bases": {
        "video": {"name": "patch_transformer", "codec": {"name": "pixels"}, "patch": (1, 8, 8)},
    },
    "sample": {
        "samplers": {"video": {"name": "ddim", "eta": 0.5, "clip": 1.0}},
        "num_steps": 7,
        "plan": {"every": 2},
        "variants": {
            "plain": {},
            "loud": {"scales": {"video": 2.0}, "num_steps": 9, "plan": {"interval": (1, 3)}},
            "sure": {"samplers": {"video": {"eta": 0.0}}},
            "other": {"samplers": {"video": {"name": "dpm_solver_pp", "order": 3}}},
        },
    },
}


def changed(**sections: Any) -> dict[str, Any]:
    return {**SMALL, **sections}


def paths(tree: Mapping[str, Any], prefix: str = "") -> set[str]:
    found = set()
    for key, value in tree.items():
        found.add(prefix + key)
        if isinstance(value, Mapping):
            found |= paths(value, f"{prefix}{key}.")
    return found


def test_every_setting_is_in_the_completed_config():
    full: Any = complete(ConfigDict({}))
    assert full.train.to_dict() == defaults_of(Training)
    known = paths(full.to_dict())
    for key in (
        *("seed", "data.dir", "clip.fps", "guidance.log_ratio", "fakes.first_index"),
        *("sample.plan.every", "sample.condition.media", "sample.variants", "evaluate.levels"),
        *("train.time.focus", "train.objective.ce_weight", "mesh.fsdp", "convert.source"),
        *("weights.discriminator", "weights.fakes", "bases", "toy", "super_resolution"),
    ):
        assert key in known
    config: Any = complete(SMALL)
    video = config.bases.video
    assert (video.width, video.depth, video.patch) == (160, 5, (1, 8, 8))
    assert "clip" not in video and "weights" not in video
    assert config.weights.video == ""
    assert config.sample.scales.to_dict() == {"video": 0.0}
    assert config.sample.text_scales.to_dict() == {"video": 1.0}
    assert config.sample.samplers.video.to_dict() == {"name": "ddim", "eta": 0.5, "clip": 1.0}
    with pytest.raises(AttributeError):
        config.train.num_step = 3  # locked


def test_a_config_decides_and_the_rest_is_default():
    experiment = Experiment.from_config(SMALL)
    assert experiment.seed == 0 and experiment.train == Training()
    assert experiment.data.folder == cache_dir() / "data"
    assert experiment.clip.num_frames == 4 and experiment.clip.num_samples == 160
    base = experiment.bases["video"]
    assert isinstance(base, PatchTransformerBase) and base.clip is experiment.clip
    assert base.name == "video" and base.formats["video"].shape == (4, 8, 8, 3)
    assert experiment.discriminator is experiment.super_resolution is experiment.toy is None
    assert not experiment.is_joint
    # Completing again changes nothing, and the record is plain JSON.
    assert complete(complete(SMALL)) == complete(SMALL)
    assert json.loads(json.dumps(experiment.resolved)) == experiment.resolved
    assert Experiment.from_config(complete(SMALL)).resolved == experiment.resolved


@pytest.mark.parametrize("name", config_names())
def test_every_shipped_config_is_an_experiment_and_states_no_unknown_key(name):
    argument = ":mmdisco_mmdiffusion" if name == "convert" else ""
    experiment = load(f"{name}{argument}").experiment
    assert json.loads(json.dumps(experiment.resolved)) == experiment.resolved
    assert experiment.is_joint == ("mm_" in name or name == "super_resolution")


def test_variants_override_some_of_the_sampling():
    experiment = Experiment.from_config(SMALL)
    plain, loud = experiment.variant("plain"), experiment.variant("loud")
    assert (plain.num_steps, loud.num_steps) == (7, 9)
    assert (plain.plan.interval, plain.plan.every) == ((), 2)
    assert (loud.plan.interval, loud.plan.every) == ((1, 3), 2)
    assert not plain.is_guided and loud.is_guided and loud.scales == {"video": 2.0}
    assert experiment.variant_names == ["other", "plain", "sure", "loud"]  # unguided first
    sure = experiment.variant("sure").samplers["video"]
    assert isinstance(sure, DDIM) and (sure.eta, sure.clip) == (0.0, 1.0)
    assert experiment.sample.num_steps == 7
    record = experiment.variant_records["loud"]
    assert record["num_steps"] == 9 and record["plan"] == {"interval": [1, 3], "every": 2}
    assert record["samplers"] == {"video": {"name": "ddim", "eta": 0.5, "clip": 1.0}}
    with pytest.raises(ValueError, match=r"unknown variant 'quiet': choose one of loud, other"):
        experiment.variant("quiet")


def test_another_sampler_does_not_inherit_the_settings_of_the_first():
    experiment = Experiment.from_config(SMALL)
    other = experiment.variant("other").samplers["video"]
    assert isinstance(other, DPMSolver) and other == DPMSolver(order=3)
    assert experiment.variant_records["other"]["samplers"] == {
        "video": {"name": "dpm_solver_pp", "order": 3}
    }


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"codecs": {}}, r"unknown config section \['codecs'\]: choose from bases, bench, clip"),
        ({"schedules": {}}, r"unknown config section \['schedules'\]"),
        ({"texts": {}, "codecs": {}}, r"unknown config section \['codecs', 'texts'\]"),
        ({"trian": {}}, r"unknown config section \['trian'\]"),
        ({"train": {"steps": 3}}, r"unknown setting config\.train\.steps: did you mean"),
        (
            {"train": {"num_steps": "3"}},
            r"config\.train\.num_steps is '3', but must be of type int",
        ),
        ({"clip": {"size": 3}}, r"unknown setting config\.clip\.size"),
        ({"clip": {"fps": 0}}, r"clip\.fps is 0, but must be above 0"),
        ({"bench": {"text_shapes": ()}}, r"unknown setting config\.bench\.text_shapes"),
        ({"sample": {"step": 3}}, r"unknown setting config\.sample\.step"),
        (
            {"sample": {"variants": {"a": {"nun_steps": 3}}}},
            r"unknown setting config\.sample\.variants\.a\.nun_steps: did you mean 'num_steps'",
        ),
        ({"sample": {"samplers": {"video": {"name": "ddin"}}}}, "unknown sampler 'ddin'"),
        (
            {"sample": {"samplers": {"video": {"name": "ddim", "order": 3}}}},
            r"config of sampler 'ddim': .*'order'",
        ),
        ({"bases": {"video": {"name": "unet"}}}, "unknown base model 'unet': choose one of"),
        ({"bases": {"video": {}}}, "unknown base model ''"),
        (
            {"bases": {"video": SMALL["bases"]["video"] | {"widht": 3}}},
            r"config of base model 'patch_transformer' \(video\): .*'widht'",
        ),
        (
            {"bases": {"video": {"name": "patch_transformer", "patch": (1, 8, 8)}}},
            r"config of base model 'patch_transformer' \(video\): .*'codec'",
        ),
        ({"discriminator": {"width": 3}}, r"config\.discriminator has no name: set one, such as"),
        ({"super_resolution": {"size": 3}}, r"unknown setting config\.super_resolution\.size"),
        ({"weights": {"vidoe": "w"}}, r"unknown setting config\.weights\.vidoe: did you mean 'vi"),
        ({"toy": {"world": ()}}, r"unknown setting config\.toy\.world: did you mean 'worlds'"),
    ],
)
def test_what_means_nothing_is_refused_by_its_name(sections, message):
    with pytest.raises(ValueError, match=message):
        Experiment.from_config(changed(**sections))


def test_a_joint_model_names_its_modalities_by_its_codecs():
    joint = Experiment.from_config(bounce_mm_diffusion.get_config())
    assert joint.is_joint and set(joint.sample.scales) == {"audio", "video"}
    assert not Experiment.from_config(bounce.get_config()).is_joint
    own = {
        "name": TINY_JOINT,
        "codec": {"audio": {"name": "waveform"}, "video": {"name": "pixels"}},
    }
    experiment = Experiment.from_config({"clip": SMALL["clip"], "bases": {"mine": own}})
    assert experiment.is_joint and experiment.sample.scales == {"audio": 0.0, "video": 0.0}
    assert experiment.resolved["bases"]["mine"]["learn_sigma"] is False


def test_a_config_is_loaded_by_name_with_overrides(tmp_path):
    config: Any = load_config("bounce:video", {"train.num_steps": 3, "sample.plan.every": 2})
    assert (config.train.num_steps, config.train.target) == (3, "video")
    assert config.sample.plan.every == 2 and config.train.batch_size == 32
    even: Any = load_config("configs/bounce.py", {"train.max_weight": None})
    assert even.train.max_weight is None
    own = tmp_path / "my, own: config.py"
    own.write_text(
        "import ml_collections\n\n\ndef get_config(seed='0'):\n"
        "    return ml_collections.ConfigDict({'seed': int(seed)})\n"
    )
    assert load_config(own).seed == 0 and load_config(f"{own}:5").seed == 5
    experiment = load(own, {"data.dir": str(tmp_path)}).experiment
    assert experiment.data.folder == Path(tmp_path)


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("bounse", {}, "there is no config 'bounse'"),
        ("bounce:smell", {}, "unknown target 'smell'"),
        ("bounce", {"train.steps": 3}, r"unknown config key 'train\.steps'"),
        ("bounce", {"train.num_steps.x": 3}, r"unknown config key 'train\.num_steps\.x'"),
        ("bounce", {"codecs.video": {}}, r"unknown config key 'codecs\.video'"),
        ("bounce", {"train.num_steps": "many"}, r"config\.train\.num_steps.*'many'"),
    ],
)
def test_what_cannot_be_overridden_is_named(text, overrides, message):
    with pytest.raises(ValueError, match=message):
        load_config(text, overrides)
