# SPDX-License-Identifier: Apache-2.0
"""The command line: what a wrong call is told, and that nothing is left behind."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmdisco_jax import cli
from mmdisco_jax.registry import Registry
from mmdisco_jax.resources import config_names
from mmdisco_jax.system import System
from tests.support import training_processes as processes

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "--config=configs/bounce.py"
TEXT = "--config=configs/vggsound_audioldm_animatediff.py"
FOUND = "--config.weights.discriminator=README.md"  # a file; it is not read in vain
LOST = [f"--config.weights.{name}=/no/where" for name in ("audio", "video", "motion")]


def call(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit status and standard error of the command line, in a process that has JAX already."""
    folder.mkdir(exist_ok=True)
    status = processes.call(_main, ["launch.py", *arguments], str(folder / "stderr"))
    return status, (folder / "stderr").read_text()


def _main(arguments: list[str], stderr: str) -> None:
    os.chdir(ROOT)
    sys.argv = arguments  # where ml_collections looks for overrides
    with open(stderr, "w") as file, contextlib.redirect_stderr(file):
        cli.main(arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("paint", CONFIG, "--workdir={}"), "unknown mode 'paint': choose one of bench, convert"),
        ((CONFIG, "--workdir={}"), "expected one MODE, got []"),
        (("train", "--workdir={}"), "--config is missing"),
        (("train", CONFIG), "--workdir is missing"),
        (
            ("train", CONFIG, "--workdir={}", "--config.train.steps=3"),
            "unknown config key 'train.steps'",
        ),
        (
            ("train", CONFIG, "--workdir={}", "--config.train.num_step=3"),
            "unknown config key 'train.num_step' (did you mean 'train.num_steps'?)",
        ),
        (
            ("sample", CONFIG, "--workdir={}", "--config.sampel.num_steps=3"),
            "unknown config key 'sampel.num_steps' (did you mean 'sample.num_steps'?)",
        ),
        (("train", CONFIG, "--workdir={}", "--config.train.num_steps=many"), "many"),
        (("train", "--config=configs/none.py", "--workdir={}"), "configs/none.py"),
        (("train", "--config=bounse", "--workdir={}"), "there is no config 'bounse'"),
        (("train", "--config"), "--config is missing"),
        (("train", CONFIG, "--wordkir={}"), "Unknown command line flag 'wordkir'"),
        (
            ("train", "--config=folder:sise=2", "--workdir={}", "--dry_run"),
            "unknown argument 'sise' of the config: choose from path, train, seconds",
        ),
        (
            ("train", "--config=folder:seconds=two", "--workdir={}", "--dry_run"),
            "argument seconds='two' of the config must be of type float",
        ),
        (("train", CONFIG + ":smell", "--workdir={}"), "unknown target 'smell': choose one of"),
        (
            ("sample", CONFIG, "--workdir={}", "--config.weights.video=no.safetensors"),
            "no.safetensors",
        ),
        (
            ("prepare", CONFIG, "--workdir={}", "--config.data.name=boing"),
            "unknown dataset 'boing'",
        ),
        (("sample", CONFIG, "--workdir={}", "--prompts=a dog"), "models read no text"),
        (("train", CONFIG, "--workdir={}", "--prompts=a dog"), "are for sample, not for train"),
        (("sample", TEXT, "--workdir={}"), 'need prompts: --prompts="a dog barks"'),
        (("sample", TEXT, "--workdir={}", "--prompts=no.txt"), "no.txt: no such file of prompts"),
        (("sample", TEXT, "--workdir={}", "--prompts=" + 20_000 * "x"), "20000 characters"),
        (
            ("sample", TEXT, "--workdir={}", "--prompts=a", "--config.weights.discriminator=no"),
            "config.weights.discriminator='no': no such file. Train a discriminator, or convert",
        ),
        (
            (*("sample", TEXT, "--workdir={}", "--prompts=a", FOUND), *LOST),
            "config.weights.motion='/no/where': no such folder",
        ),
    ],
)
def test_a_wrong_call_is_one_clear_error(tmp_path, arguments, said):
    workdir = tmp_path / "run"
    filled = (argument.replace("{}", str(workdir)) for argument in arguments)
    status, stderr = call(tmp_path / "said", *filled)
    assert status in (1, 2)
    assert said in stderr
    assert "Traceback" not in stderr
    assert not any(p.is_file() for p in workdir.rglob("*"))


def test_help_tells_modes_flags_and_examples_and_does_nothing(capsys):
    for flag in ("--help", "-h"):
        assert cli.main(["launch.py", flag]) is None  # no exit status but 0
        told = capsys.readouterr()
        assert not told.err
        for mode in cli.TASKS.names():
            assert f"\n  {mode} " in told.out
        for name in ("config", "workdir", "prompts", "negative_prompt", "dry_run", "traceback"):
            assert f"--{name}" in told.out
        examples = told.out.split("examples:")[1].split("shipped configs:")[0]
        assert examples.count("  mmdisco ") == 3
        assert all(name in told.out for name in config_names())


def resolved(capsys: pytest.CaptureFixture, *arguments: str) -> dict:
    """What --dry_run prints of `sample` with these arguments."""
    cli.main(["launch.py", "sample", *arguments, "--workdir=nowhere", "--dry_run"])
    return json.loads(capsys.readouterr().out)


def test_a_shipped_config_is_known_by_its_name_in_any_folder(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = resolved(capsys, "--config=bounce")
    assert first["data"]["name"] == "bounce" and first["train"]["target"] == "discriminator"
    assert resolved(capsys, "--config", "configs/bounce.py") == first
    assert resolved(capsys, "--config=bounce:video")["train"]["target"] == "video"
    assert not list(tmp_path.iterdir())


def test_named_arguments_keep_odd_paths_and_types(capsys):
    config = resolved(capsys, "--config=folder:path=/a, b=c:d,seconds=2,train=video,size=32")
    options = config["data"]["options"]
    assert options["folder"] == "/a, b=c:d"
    assert options["clip_seconds"] == config["clip"]["seconds"] == 2.0
    assert config["clip"]["height"] == config["clip"]["width"] == options["height"] == 32
    assert config["train"]["target"] == "video"
    first = resolved(capsys, "--config=folder:/media/my, videos,fps=8")
    assert first["data"]["options"]["folder"] == "/media/my, videos"
    assert first["clip"]["fps"] == 8


def test_prompts_become_part_of_the_config(capsys, tmp_path):
    (tmp_path / "more.txt").write_text("a cat\na bell\n")
    prompts = ("--prompts=a dog", f"--prompts={tmp_path / 'more.txt'}", "--negative_prompt=noise")
    sampling = resolved(capsys, TEXT, *prompts)["sample"]
    assert sampling["prompts"] == ["a dog", "a cat", "a bell"]
    assert sampling["negative_prompt"] == "noise"


def test_the_traceback_of_an_error_is_shown_on_request():
    with pytest.raises(ValueError, match="unknown mode 'paint'"):
        cli.main(["launch.py", "paint", CONFIG, "--workdir=nowhere", "--traceback"])


def interrupted(system: System, workdir: Path) -> None:
    """A mode during which the user presses Ctrl-C."""
    raise KeyboardInterrupt


def _main_of_interrupted(arguments: list[str], stderr: str) -> None:
    cli.TASKS = Registry("mode", {"train": "tests.test_cli:interrupted"})
    _main(arguments, stderr)


def test_an_interrupted_run_is_no_traceback(tmp_path):
    arguments = ["launch.py", "train", CONFIG, f"--workdir={tmp_path / 'run'}", "--compile_cache="]
    status = processes.call(_main_of_interrupted, arguments, str(tmp_path / "stderr"))
    assert status == 130
    told = (tmp_path / "stderr").read_text()
    assert told == "interrupted; the same command resumes where it stopped.\n"


def test_dry_run_prints_the_resolved_config_and_does_nothing(tmp_path):
    workdir = tmp_path / "run"
    override = "--config.sample.num_steps=7"
    command = [sys.executable, "launch.py", "sample", CONFIG, f"--workdir={workdir}", override]
    result = subprocess.run(
        [*command, "--dry_run"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["sample"]["num_steps"] == 7
    assert not workdir.exists()
