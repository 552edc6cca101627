# SPDX-License-Identifier: Apache-2.0
"""Remote paths are refused by name before any work, in every mode and for every setting."""

from pathlib import Path
from typing import Any

import pytest

from mmdisco_jax import cli
from mmdisco_jax.experiment import Experiment, load_config
from mmdisco_jax.io import is_remote, replacing, replacing_folder, require_local
from mmdisco_jax.locks import locked
from mmdisco_jax.tasks import TASKS
from mmdisco_jax.text.prompts import read_prompts

BUCKET = "gs://bucket/run"
TEXT = "vggsound_audioldm_animatediff"


@pytest.mark.parametrize("mode", TASKS.names())
def test_a_remote_workdir_is_refused_in_every_mode(mode, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match=f"--workdir='gs://bucket/run' is a remote path, and {mode}"
    ):
        cli._parse(["launch.py", mode, "--config=bounce", f"--workdir={BUCKET}"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("config", "key", "value"),
    [
        ("bounce", "data.dir", BUCKET),
        ("bounce", "data.latents", "s3://bucket/latents"),
        ("bounce", "weights.audio", "gs://bucket/audio.safetensors"),
        ("bounce", "weights.fakes", BUCKET),
        ("bounce", "train.init_from", BUCKET),
        ("bounce", "evaluate.pool", f"('{BUCKET}',)"),
        ("bounce", "sample.condition.media", BUCKET),
        ("bounce", "sample.discriminator_weights", BUCKET),
        ("convert", "convert.source", BUCKET),
        ("convert", "convert.target", BUCKET),
        ("folder", "data.options.folder", "file:///videos"),
        ("super_resolution", "super_resolution.weights", BUCKET),
        (TEXT, "weights.video", "hf://NAME/MODEL"),
        (TEXT, "weights.motion", "hf://NAME/MODEL"),
    ],
)
def test_a_remote_path_of_any_setting_is_refused(config, key, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    override = f"--config.{key}={value}"
    arguments = ["launch.py", "prepare", f"--config={config}", "--workdir=run"]
    with pytest.raises(ValueError, match=rf"config\.{key}.* is a remote path, and prepare"):
        cli._parse([*arguments, override])
    assert not list(tmp_path.iterdir())


def test_from_python_too():
    config: Any = load_config("bounce")
    config.evaluate.weights = {"clap": "gs://bucket/clap"}
    with pytest.raises(ValueError, match=r"config\.evaluate\.weights\.clap='gs://bucket/clap'"):
        Experiment.from_config(config)
    config.evaluate.weights = {}
    with config.unlocked():
        config.sample.variants.guided.discriminator_weights = "https://host/d.safetensors"
    with pytest.raises(
        ValueError, match=r"variants\.guided\.discriminator_weights='https.*download"
    ):
        Experiment.from_config(config)
    config = load_config("bounce")
    config.sample.prompts = ("a page at https://example.org/dog, read aloud",)
    assert Experiment.from_config(config).sample.prompts == config.sample.prompts


def test_what_pathlib_makes_of_a_url_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path(BUCKET)
    assert str(path) == "gs:/bucket/run" and is_remote(path)
    with pytest.raises(ValueError, match="remote path"), locked(path):
        pass
    with pytest.raises(ValueError, match="remote path"), replacing(path):
        pass
    with pytest.raises(ValueError, match="remote path"), replacing_folder(path):
        pass
    with pytest.raises(ValueError, match="remote path"):
        read_prompts("gs://bucket/prompts.txt")
    assert not list(tmp_path.iterdir())


def test_remedies_fit_and_local_paths_pass():
    for path, remedy in (
        ("hf://NAME/MODEL", "give the id alone"),
        ("file:///videos", "leave out file://"),
        ("https://host/file", "download it"),
        ("az://container/x", "mount the bucket"),
    ):
        with pytest.raises(ValueError, match=remedy):
            require_local({"it": path})
    names = ("", "runs/a", "/a", "a: b/c", "C:/videos", "x/gs://y", "mypackage.models:Base", "a:/b")
    require_local({f"name {i}": name for i, name in enumerate(names)})
