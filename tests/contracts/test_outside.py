# SPDX-License-Identifier: Apache-2.0
"""Extension from outside: one new file adds a component of each kind, and no file is edited.

The config names a base model, codecs of other latents, a sampler, a metric with weights and a
dataset by "package.module:attribute", and a mode is called by such a name on the command line.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdisco_jax import cli
from mmdisco_jax.experiment import load_config
from mmdisco_jax.export.clips import read_all

OUTSIDE = "tests.support.outside"
CONFIG = """
import ml_collections


def base(codec, **options):
    codec = {{"name": "{outside}.codec:" + codec, **options}}
    return {{"name": "{outside}.base:PointwiseBase", "width": 8, "codec": codec}}


def get_config():
    return ml_collections.ConfigDict({{
        "data": {{"name": "{outside}.dataset:RisingClips", "dir": "{folder}/data"}},
        "clip": {{"seconds": 1.0, "fps": 4, "height": 16, "width": 16, "sample_rate_hz": 8000}},
        "bases": {{"audio": base("Volume", block=500), "video": base("FrameColour")}},
        "discriminator": {{
            "name": "aligned_on_bases", "width": 8, "tower_depth": 1, "fusion_depth": 1,
            "num_heads": 2,
        }},
        "weights": {{
            name: "{folder}/" + name + "/weights.safetensors"
            for name in ("audio", "video", "discriminator")
        }},
        "train": {{"num_steps": 2, "batch_size": 4, "warmup_steps": 1, "objective": {{
            "groups": 2, "denoising_samples": 2, "denoising_from": 1, "shifts": 1}}}},
        "sample": {{
            "num_samples": 2, "batch_size": 2, "num_media": 1, "num_steps": 3,
            "samplers": {{
                "audio": {{"name": "{outside}.stepper:Euler"}},
                "video": {{"name": "{outside}.stepper:Euler", "scale": 0.9}},
            }},
            "variants": {{"alone": {{}}, "guided": {{"scales": {{"audio": 1.0, "video": 1.0}}}}}},
        }},
        "evaluate": {{
            "metrics": ("{outside}.metric:make",),
            "weights": {{"warmth": "{folder}/warmth.npy"}},
            "num_real": 4, "replicates": 20,
        }},
    }})
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with the config and the metric's weights."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "mine.py").write_text(CONFIG.format(outside=OUTSIDE, folder=folder))
    np.save(folder / "warmth.npy", np.array([1.0, 0.0, -0.5]))
    return folder


def call(folder: Path, mode: str, name: str, *flags: str) -> Path:
    """Calls one mode as the command line does; returns its workdir."""
    workdir = folder / name
    arguments = ["mmdisco", mode, f"--config={folder}/mine.py", f"--workdir={workdir}", *flags]
    cli.main([*arguments, "--compile_cache=", "--traceback"])
    return workdir


@pytest.fixture(scope="module")
def trained(folder) -> Path:
    """The same folder, once both bases and the discriminator are trained."""
    call(folder, "prepare", "prepared")
    for target in ("audio", "video", "discriminator"):
        workdir = call(folder, "train", target, f"--config.train.target={target}")
        assert (workdir / "weights.safetensors").is_file()
    return folder


@pytest.fixture(scope="module")
def sampled(trained) -> Path:
    return call(trained, "sample", "samples")


def test_the_defaults_of_outside_components_can_be_overridden(folder):
    keys = {"bases.video.width": 16, "sample.samplers.audio.scale": 0.5}
    config: Any = load_config(folder / "mine.py", keys)
    assert config.bases.video.width == 16 and config.bases.audio.width == 8
    assert config.sample.samplers.audio.scale == 0.5


def test_the_dataset_lies_in_a_folder_of_its_own_name(trained):
    assert [path.name for path in (trained / "data").iterdir() if path.is_dir()] == ["rising_clips"]


def test_samples_of_an_outside_pair_are_clips(sampled):
    alone, guided = (read_all(sampled / name) for name in ("alone", "guided"))
    assert alone["video"].shape == (2, 4, 16, 16, 3) and alone["video"].dtype == np.uint8
    assert alone["audio"].shape == (2, 8000) and alone["audio"].dtype == np.int16
    assert any((alone[m] != guided[m]).any() for m in alone)
    assert list((sampled / "guided").glob("*.mp4"))


def test_an_outside_metric_reads_its_weights(sampled, trained):
    call(trained, "evaluate", "samples")
    rows = json.loads((sampled / "metrics.json").read_text())["rows"]
    assert rows.keys() == {"real", "alone", "guided"}
    video = read_all(sampled / "alone")["video"].mean((1, 2, 3)) / 255
    (result,) = rows["alone"]
    assert result["protocol"] == "warmth_v1"
    assert result["value"] == pytest.approx((video @ [1.0, 0.0, -0.5]).mean(), abs=1e-6)


def test_a_metric_without_its_weights_names_them(sampled, trained):
    with pytest.raises(ValueError, match="'warmth' is a network and needs its weights"):
        call(trained, "evaluate", "samples", "--config.evaluate.weights={}")


def test_an_outside_mode_runs_on_the_system(trained):
    workdir = call(trained, f"{OUTSIDE}.mode:run", "pull")
    sizes = json.loads((workdir / "pull.json").read_text())
    assert sizes.keys() == {"audio", "video"}
    assert all(np.isfinite(size) and size > 0 for size in sizes.values())


@pytest.mark.parametrize("mode", ["nowhere:run", f"{OUTSIDE}.mode:walk", "paint"])
def test_a_mode_that_is_not_there_is_a_sentence(folder, mode, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["mmdisco", mode, f"--config={folder}/mine.py", f"--workdir={folder}/none"])
    assert stop.value.code == 2 and mode.partition(":")[0] in capsys.readouterr().err
    assert not (folder / "none").exists()


@pytest.mark.parametrize("kind", ["base", "codec", "stepper", "metric", "dataset", "mode"])
def test_each_component_is_one_file_and_the_package_does_not_know_it(kind):
    """Files to touch: the new one."""
    root = Path(cli.__file__).parent
    assert (root.parent / OUTSIDE.replace(".", "/") / f"{kind}.py").is_file()
    known = re.compile(rf"outside\.{kind}|\btests\b.*import")
    assert not [p for p in root.rglob("*.py") if known.search(p.read_text())]
