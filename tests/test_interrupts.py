# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C in every mode: one true sentence, status 130, nothing half-written; then it goes on."""

import contextlib
import dataclasses
import importlib
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

from mmdisco_jax import cli
from mmdisco_jax.discriminator.official import PRESETS, OfficialDiscriminator
from mmdisco_jax.export.media import write_mp4
from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.porting.weights import save_weights
from mmdisco_jax.system import load
from mmdisco_jax.tasks import TASKS, convert
from mmdisco_jax.worlds.bounce import physics
from tests.support import training_processes as processes
from tests.support.randoms import random_params

SMALL = """
from ml_collections import ConfigDict
from mmdisco_jax import recipes

def get_config():
    bases = recipes.patch_transformers(size=16, num_mels=16, mel_mean=0.0)
    for base in bases.values():
        base |= {{"width": 16, "depth": 1, "num_heads": 2}}
        base["patch_width"] = min(base["patch_width"], 4)
    clip = {{"seconds": 0.5, "fps": 8, "size": 16, "rate": 8000}}
    head = recipes.aligned_on_bases() | {{"width": 16, "num_heads": 2, "tower_depth": 1}}
    sampling = recipes.ddim_sampling() | {{"num_steps": 2, "num_samples": 4, "batch_size": 2}}
    toy = {{"worlds": ("pairs",), "num_samples": 20}}
    data = recipes.media_data("folder", {media!r}, spatial="pad", **clip)
    data["options"]["test_fraction"] = 0.5
    return ConfigDict({{
        "data": data | {{"dir": {data!r}, "prepare_workers": 1}},
        "clip": recipes.clip_format(**clip),
        "bases": bases,
        "discriminator": head | {{"fusion_depth": 1}},
        "weights": {{n: {weights!r} + f"/{{n}}.safetensors"
                     for n in ("video", "audio", "discriminator")}},
        "sample": sampling | {{"num_media": 1, "variants": {{"independent": {{}}}}}},
        "evaluate": {{"metrics": ("av_align",), "replicates": 5}},
        "train": {{"target": "audio", "batch_size": 2, "num_steps": 6, "log_every": 1}},
        "bench": {{"batch_size": 1, "repeats": 1, "parts": ("guidance",)}},
        "convert": {{"architecture": "tiny", "source": {source!r},
                     "target": "disc.pt"}},
        "toy": toy | {{"bases": {{"near": {{"shift": 0.1, "widen": 0.1}}}},
                       "losses": {{"ce": {{"cross_entropy": 1.0}}}}, "scales": recipes.both(1.0),
                       "num_reference": 20, "num_replicates": 5, "num_steps": 2,
                       "discriminator": {{"width": 8, "depth": 1, "num_waves": 2}}}},
    }})
"""


# A discriminator to convert; the released ones have 130 MB.
TINY = convert.Architecture(
    make=lambda: OfficialDiscriminator(
        dataclasses.replace(
            PRESETS["audioldm_animatediff"],
            **{"model_channels": 8, "channel_mult": (1,), "num_res_blocks": 1, "num_groups": 4},
        ),
        rngs=param_keys(0),
    ),
    inside="network",
)


def _strike(place: str, number: int) -> None:
    """From its `number`-th call on, the function at "module:name" begins with a Ctrl-C."""
    module, _, name = place.partition(":")
    *owners, last = name.split(".")
    owner = importlib.import_module(module)
    for one in owners:
        owner = getattr(owner, one)
    whole, calls = getattr(owner, last), []

    def struck(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGINT)
        return whole(*args, **kwargs)

    setattr(owner, last, struck)


def _main(arguments: list[str], stderr: str, place: str = "", number: int = 1) -> None:
    sys.argv = arguments
    convert.ARCHITECTURES["tiny"] = TINY
    if place:
        _strike(place, number)
    with (
        open(stderr, "w") as file,
        contextlib.redirect_stderr(file),
        contextlib.redirect_stdout(file),
    ):
        cli.main(arguments)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("interrupts")
    (folder / "media").mkdir()
    for i in range(4):
        clip = physics.simulate(0, i)
        path = folder / "media" / f"{i}.mp4"
        write_mp4(path, clip.video, clip.audio, fps=8, sample_rate_hz=16_000)
    path = folder / "small.py"
    names = {name: str(folder / name) for name in ("media", "data", "weights")}
    path.write_text(SMALL.format(**names, source=str(folder / "disc.safetensors")))
    system = load(path)
    inits = {name: init for name, (_, init) in system.definitions.items()}
    inits["discriminator"] = system.discriminator[1]
    (folder / "weights").mkdir()
    for i, (name, init) in enumerate(inits.items()):
        params = random_params(jax.eval_shape(init, jax.random.key(0)), i)
        save_weights(folder / "weights" / f"{name}.safetensors", params, {})
    convert.ARCHITECTURES["tiny"] = TINY
    params = random_params(TINY.ours(TINY.abstract), 0)
    save_weights(folder / "disc.safetensors", params, {})
    return path


def call(config: Path, mode: str, workdir: Path, *strike: Any, extra: tuple = ()) -> tuple:
    said = workdir.with_suffix(".txt")
    arguments = ["launch.py", mode, f"--config={config}", f"--workdir={workdir}", *extra]
    status = processes.call(_main, [*arguments, "--compile_cache="], str(said), *strike)
    return status, said.read_text()


STRIKES = {
    "prepare": ("mmdisco_jax.progress:Progress.update", 6),  # while cutting
    "train": ("mmdisco_jax.progress:Progress.update", 3),
    "sample": ("mmdisco_jax.progress:Progress.update", 3),  # in the second batch
    "evaluate": ("mmdisco_jax.tasks.evaluate:write_bytes", 1),
    "bench": ("mmdisco_jax.tasks.bench:write_bytes", 1),
    "toy": ("mmdisco_jax.tasks.toy:energy_distance", 1),
    "convert": ("mmdisco_jax.tasks.convert:write_tensors", 1),
    "release": ("mmdisco_jax.tasks.release:write_bytes", 1),
}


def test_all_modes_are_here_and_have_a_sentence():
    assert set(STRIKES) == set(cli._AGAIN) == set(TASKS.names())


def unfinished(folder: Path) -> list[Path]:
    """Temporary files that an interrupted write may leave."""
    marks = (".part", ".partial", "tmp", "incomplete")
    return [p for p in folder.rglob("*") if any(mark in p.name for mark in marks)]


def test_ctrl_c_while_preparing(config, tmp_path):
    status, said = call(config, "prepare", tmp_path / "run", *STRIKES["prepare"])
    assert status == 130 and "Traceback" not in said
    assert said.endswith(f"interrupted; the same command {cli._AGAIN['prepare']}.\n")
    data = config.parent / "data"
    assert not list(data.glob("folder/*/*/dataset_info.json"))
    kept = {p: p.stat().st_mtime_ns for p in data.rglob("*.array_record") if "pieces" in str(p)}
    assert kept  # what was cut is used
    status, said = call(config, "prepare", tmp_path / "run")
    assert status == 0 and '"already_prepared": false' in said
    assert list(data.glob("folder/*/*/dataset_info.json"))


MADE = {
    "sample": "index.html",
    "evaluate": "metrics.json",
    "bench": "bench.json",
    "toy": "toy.json",
    "convert": "disc.pt",
    "release": "config.json",
    "train": "weights.safetensors",
}
NEEDS = {"release": ("--config.release.license=mit",)}


@pytest.mark.parametrize("mode", ["sample", "train", "bench", "toy", "release", "convert"])
def test_ctrl_c_in_a_mode_and_the_same_command_again(config, tmp_path, mode):
    extra = NEEDS.get(mode, ())
    status, said = call(config, mode, tmp_path / "run", *STRIKES[mode], extra=extra)
    assert status == 130, said
    assert "Traceback" not in said and "fault" not in said
    if mode == "train":
        assert re.search(r"SIGINT at step \d: a checkpoint of this step was written\.", said)
    else:
        assert said.endswith(f"interrupted; the same command {cli._AGAIN[mode]}.\n")
    assert not (tmp_path / "run" / MADE[mode]).exists()
    assert not unfinished(tmp_path / "run")
    if mode == "sample":
        assert [p.name for p in (tmp_path / "run").rglob("*.npz")] == ["samples_00000000.npz"]
    if mode == "bench":
        return
    status, said = call(config, mode, tmp_path / "run", extra=extra)
    assert status == 0, said
    assert (tmp_path / "run" / MADE[mode]).is_file()


def test_ctrl_c_while_measuring(config, tmp_path):
    for mode in ("prepare", "sample"):
        status, said = call(config, mode, tmp_path / "run")
        assert status == 0, said
    status, said = call(config, "evaluate", tmp_path / "run", *STRIKES["evaluate"])
    assert status == 130 and said.endswith(f"the same command {cli._AGAIN['evaluate']}.\n"), said
    assert not (tmp_path / "run/metrics.json").exists() and not unfinished(tmp_path / "run")
