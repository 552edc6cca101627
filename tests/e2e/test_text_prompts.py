# SPDX-License-Identifier: Apache-2.0
"""`launch.py sample --prompts`, as users call it: odd prompts, several devices, one seed."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from mmdisco_jax.export.clips import read_all
from mmdisco_jax.porting.weights import save_weights
from tests.golden.checker import relative_error
from tests.support import tiny_pipelines as tiny
from tests.support.experiments import system_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
LONG = "a very " * 714 + "old"  # 5,001 characters
PROMPTS = ("", "🔥🎸", "../../x", "a dog", "a dog", LONG)
FILE = "\ufeffrain on a roof\r\n\r\n/etc/passwd\r\n"
STEMS = ("untitled", "untitled", "x", "a_dog", "a_dog", "a_very_a_very")
CONFIG = """
from tests.support import tiny_pipelines


def get_config():
    config = tiny_pipelines.config(".", {audio!r}, {video!r})
    config.weights.discriminator = {discriminator!r}
    return config
"""


@pytest.fixture(scope="module")
def config_file(tmp_path_factory) -> Path:
    """A config for pipelines on the disk, and a random discriminator."""
    folder = tmp_path_factory.mktemp("models")
    tiny.save(folder)
    named = {m: str(folder / m) for m in ("audio", "video")}
    named["discriminator"] = str(folder / "discriminator.safetensors")
    config = tiny.config(".", folder / "audio", folder / "video")
    save_weights(named["discriminator"], system_of(config).discriminator[1](jax.random.key(0)), {})
    (folder / "config.py").write_text(CONFIG.format(**named))
    (folder / "more.txt").write_bytes(FILE.encode())
    return folder / "config.py"


def launch(config_file: Path, workdir: Path, *flags: str, devices: int = 1) -> str:
    """Standard error of a `sample` that must succeed."""
    command = [sys.executable, "launch.py", "sample", f"--config={config_file}"]
    env = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    done = subprocess.run(
        [*command, f"--workdir={workdir}", "--compile_cache=", *flags],
        **{"cwd": ROOT, "env": env, "capture_output": True, "text": True, "timeout": 600},
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def inside(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*")}


def test_odd_prompts_at_any_batch_size_and_device_count(config_file, tmp_path):
    flags = [f"--prompts={p}" for p in PROMPTS] + [f"--prompts={config_file.parent / 'more.txt'}"]
    one, many = tmp_path / "out" / "one", tmp_path / "out" / "many"
    launch(config_file, one, *flags, "--config.sample.batch_size=3")
    launch(config_file, many, *flags, "--config.sample.batch_size=4", devices=4)
    assert {path.parent for path in inside(tmp_path / "out") - inside(one) - inside(many)} == {
        tmp_path / "out"
    }
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
    for variant in ("independent", "guided"):
        names = sorted(path.stem for path in (one / variant).glob("*.mp4"))
        wanted = [*STEMS, "rain_on_a_roof", "etc_passwd"]
        assert len(names) == len(wanted)
        for number, (name, start) in enumerate(zip(names, wanted, strict=True)):
            assert name.startswith(f"{number:05d}-{start}") and len(name) < 100
        clips, same = read_all(one / variant), read_all(many / variant)
        for m, x in clips.items():
            assert relative_error(same[m].astype(np.float32), x.astype(np.float32)) < 2e-3, m
        # Two samples of one prompt, from other noise.
        assert np.abs(clips["video"][3].astype(int) - clips["video"][4]).mean() > 1
    page = (one / "index.html").read_text()
    assert page.count("<video") == 16 and "../../x" in page and "🔥🎸" in page


def test_negative_prompts_and_seeds(config_file, tmp_path):
    only = ("--prompts=a dog", "--config.sample.samples_per_prompt=2")
    made = {}
    for name, flags in {
        "plain": (),
        "negative": ("--negative_prompt=rain",),
        "seed": ("--config.sample.seed=1",),
    }.items():
        launch(config_file, tmp_path / name, *only, *flags)
        made[name] = read_all(tmp_path / name / "independent")["video"].astype(int)
    assert len(made["plain"]) == 2
    assert np.abs(made["plain"] - made["negative"]).mean() > 0.5
    assert np.abs(made["plain"] - made["seed"]).mean() > 1
