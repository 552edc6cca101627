# SPDX-License-Identifier: Apache-2.0
"""Configs of one's own videos: presets, weights of the run, mistyped arguments, odd rates."""

import json
from pathlib import Path
from typing import Any

import pytest

from mmdisco_jax import cli
from mmdisco_jax.experiment import Experiment, load_config
from mmdisco_jax.recipes import arguments
from mmdisco_jax.resources import config_names, in_run
from mmdisco_jax.system import load
from mmdisco_jax.tasks import prepare
from tests.support.shrunken import module_of

PRESETS = module_of("folder").PRESETS
ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_an_experiment_whose_trainings_agree(preset):
    systems = {t: load(f"folder:/v,preset={preset},train={t}") for t in ("video", "audio")}
    systems["discriminator"] = load(f"folder:/v,preset={preset}")
    assert len({str(s.experiment.bases) for s in systems.values()}) == 1
    for target, system in systems.items():
        train = system.experiment.train
        assert train.target == target and train.warmup_steps < train.num_steps / 5
        assert system.discriminator and system.shapes["video"][0] == 16
    steps = [sum(PRESETS[p][1].values()) for p in ("minutes", "hour", "night")]
    assert steps == sorted(steps)


def test_without_a_preset_everything_is_as_it_was():
    video: Any = load_config("folder:/v,train=video")
    assert (video.train.num_steps, video.train.batch_size, video.clip.height) == (3500, 32, 64)
    assert video.bases.video.width == 192 and video.clip.fps == 10
    assert isinstance(video.clip.fps, int) and isinstance(video.data.options.fps, int)


def test_every_preset_is_in_the_lab_book_and_the_note():
    book = (ROOT / "configs/README.md").read_text()
    note = (ROOT / "configs/folder.py").read_text()
    for preset in PRESETS:
        assert f"| `{preset}`" in book
        assert f"    {preset} " in note


@pytest.mark.parametrize("name", ["folder", "folder_mm_diffusion"])
def test_weights_follow_the_run_that_the_workdir_is_in(name, capsys):
    def weights(workdir: str, *more: str) -> dict:
        command = ["mmdisco", "sample", f"--config={name}:/v{''.join(more)}"]
        cli.main([*command, f"--workdir={workdir}", "--dry_run"])
        return json.loads(capsys.readouterr().out)["weights"]

    holiday = weights("runs/holiday/samples")
    assert holiday["discriminator"] == "runs/holiday/discriminator/weights.safetensors"
    assert not any("runs/mine" in path for path in holiday.values())
    assert weights("runs/mine/samples")["discriminator"].startswith("runs/mine/")
    named = weights("elsewhere", ",runs=runs/other")
    assert named["discriminator"] == "runs/other/discriminator/weights.safetensors"


def test_the_workdir_itself_is_the_run_where_the_weights_lie_in_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "{run}/video/weights.safetensors"
    assert in_run(text, "runs/a") == "runs/video/weights.safetensors"
    (tmp_path / "runs/a/video").mkdir(parents=True)
    (tmp_path / "runs/a/video/weights.safetensors").touch()
    assert in_run(text, "runs/a") == "runs/a/video/weights.safetensors"
    assert in_run(text, "samples") == "video/weights.safetensors"
    assert in_run(text, ".") == "../video/weights.safetensors"
    assert in_run("mine.safetensors", "runs/a") == "mine.safetensors"


def test_a_run_that_is_not_known_is_an_error_from_python():
    system = load("folder:/v")
    with pytest.raises(FileNotFoundError, match="name its folder as the argument runs=FOLDER"):
        _ = system.base_params
    with pytest.raises(FileNotFoundError, match="argument runs=FOLDER"):
        system.require_files(["guided"])
    Experiment.from_config(load_config("folder:/v,train=video"))  # which needs no weights


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path=/a,sise=64", "unknown argument 'sise' of the config: did you mean 'size'?"),
        ("/a,trian=video,size=32", "unknown argument 'trian'"),
        ("/a, size=32", "no space before an argument"),
        ("/a,seconds=2,foo=1", "unknown argument 'foo'"),
        ("/a,preset=minute", "unknown preset 'minute'"),
        ("/a,fps=29.97", "have 47.952 frames"),
        ("/a,rate=11025,fps=8,seconds=1.3", "have 10.4 frames"),
        ("/a,seconds=0", "have 0 frames"),
        ("/a,fps=nan", "fps=nan"),
    ],
)
def test_mistyped_arguments_are_told(text, said):
    with pytest.raises(ValueError) as error:
        load_config(f"folder:{text}")
    assert said in str(error.value)


def test_a_folder_that_looks_like_an_argument_can_be_named(tmp_path):
    odd = tmp_path / "a,sise=64"
    odd.mkdir()
    assert arguments(str(odd), "path", path=".", size=1)["path"] == str(odd)
    assert arguments("/a, b=c:d", "path", path=".", size=1)["path"] == "/a, b=c:d"


def test_rates_that_are_no_whole_numbers_are_taken_where_clips_are_whole():
    assert load("folder:/a,fps=12.5").experiment.clip.num_frames == 20


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seconds", 10.0),
        ("fps", 12),
        ("height", 32),
        ("width", 48),
        ("sample_rate_hz", 44_100),
    ],
)
def test_clips_that_the_records_cannot_give_are_refused_before_any_work(tmp_path, key, value):
    system = load("folder:/no/where", {f"clip.{key}": value})
    with pytest.raises(ValueError, match=rf"config\.clip\.{key} is {value:g}, but records have"):
        prepare.run(system, tmp_path / "run")


@pytest.mark.parametrize("name", [n for n in config_names() if n not in ("toy", "convert")])
def test_records_and_clips_of_shipped_configs_agree(name):
    system = load(name)
    prepare.require_agreement(system, system.experiment.data.options)


def test_simulated_records_are_compared_too():
    system = load("bounce", {"clip.seconds": 10.0})
    with pytest.raises(ValueError, match=r"config\.clip\.seconds is 10, but records have 2"):
        prepare.require_agreement(system, {"clip_seconds": 2.0, "fps": 8})
