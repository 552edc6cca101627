# SPDX-License-Identifier: Apache-2.0
"""The command line: what a wrong call is told, and that nothing is left behind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "--config=configs/bounce.py"


def launch(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "launch.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("paint", CONFIG, "--workdir={}"), "unknown mode 'paint': choose one of bench, evaluate"),
        ((CONFIG, "--workdir={}"), "expected one MODE, got []"),
        (("train", "--workdir={}"), "--config is missing"),
        (("train", CONFIG), "--workdir is missing"),
        (("train", CONFIG, "--workdir={}", "--config.train.steps=3"), "unknown config key 'steps'"),
        (("train", CONFIG, "--workdir={}", "--config.train.num_steps=many"), "many"),
        (("train", "--config=configs/none.py", "--workdir={}"), "configs/none.py"),
        (("train", CONFIG + ":smell", "--workdir={}"), "unknown target 'smell': choose one of"),
        (
            ("sample", CONFIG, "--workdir={}", "--config.weights.video=no.safetensors"),
            "no.safetensors",
        ),
        (
            ("prepare", CONFIG, "--workdir={}", "--config.data.name=boing"),
            "unknown dataset 'boing'",
        ),
    ],
)
def test_a_wrong_call_is_one_clear_error(tmp_path, arguments, said):
    workdir = tmp_path / "run"
    result = launch(*(a.replace("{}", str(workdir)) for a in arguments))
    assert result.returncode in (1, 2)
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert not any(p.is_file() for p in tmp_path.rglob("*.npz"))


def test_dry_run_prints_the_resolved_config_and_does_nothing(tmp_path):
    workdir = tmp_path / "run"
    override = "--config.sample.num_steps=7"
    result = launch("sample", CONFIG, f"--workdir={workdir}", override, "--dry_run")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["sample"]["num_steps"] == 7
    assert not workdir.exists()
