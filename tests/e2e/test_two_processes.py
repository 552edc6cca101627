# SPDX-License-Identifier: Apache-2.0
"""Every mode by two processes: what one process makes, written once, and an end for both."""

import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from mmdisco_jax import cli, parallel
from mmdisco_jax.experiment import load_config
from mmdisco_jax.export.clips import read_all
from mmdisco_jax.inputs.cache import open_cache, read_cache
from mmdisco_jax.processes import together, wait
from mmdisco_jax.tasks import ALONE, latents
from mmdisco_jax.training.metrics_log import loss_trace, read_metrics
from tests.support import training_processes as processes
from tests.support.experiments import run_mode, write_random_weights
from tests.support.shrunken import shrink

FOLDERS = {"prepare": "prepare", "train": "train", "sample": "samples", "evaluate": "samples"}


def config_in(folder: Path, weights: Path) -> Any:
    """Bounce, shrunk, with latents and fakes, whose files are all in a folder."""
    config: Any = load_config("configs/bounce.py")
    shrink(config)
    config.data.dir, config.data.latents = str(folder / "data"), str(folder / "latents")
    config.data.options.update(num_train=7, num_test=4)
    config.data.flip = "off"
    config.fakes.num_samples = 5
    config.weights.fakes = str(folder / "prepare" / "fakes")
    config.mesh.data = -1
    config.train.update(num_steps=3, batch_size=4, log_every=1, save_every=3, num_microbatches=2)
    config.train.weights_dtype = "float32"
    config.train.objective.update(fakes="generated", denoising_weight=0.0)
    config.sample.update(num_samples=3, batch_size=2, num_media=3)
    for name in list(config.sample.variants):
        if name not in ("independent", "guided"):
            del config.sample.variants[name]
    config.evaluate.update(metrics=("bounce",), replicates=5, levels=(), num_real=4)
    write_random_weights(config, weights)
    return config


def _run(
    modes: tuple[str, ...], config: Any, folder: Path, address: str = "", number: int = 0
) -> None:
    if address:
        parallel.initialize_distributed(address, 2, number)
    latents._SHARD = 4
    for mode in modes:
        with together():
            if mode not in ALONE or not jax.process_index():
                run_mode(mode, config, folder / FOLDERS[mode])


def run_by_one_and_two(folders: tuple[Path, Path, Path], *modes: str) -> None:
    """The modes in the first folder by one process, and in the second by two."""
    one, two, weights = folders
    status = processes.call(_run, modes, config_in(one, weights), one)
    address, config = processes.free_address(), config_in(two, weights)
    both = [processes.start(_run, modes, config, two, address, i) for i in range(2)]
    assert [status, *(processes.finish(process, 300) for process in both)] == [0, 0, 0]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path, Path]:
    """Folders of one process, of two, and of the weights of both."""
    one, two, weights = (tmp_path_factory.mktemp(name) for name in ("one", "two", "weights"))
    run_by_one_and_two((one, two, weights), "prepare", "sample", "evaluate")
    return one, two, weights


@pytest.fixture(scope="module")
def made(folders) -> tuple[Path, Path]:
    return folders[:2]


def files_of(folder: Path) -> set[str]:
    """Names of all files, apart from those that are named by times and hosts."""
    found = (str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    return {name for name in found if "tfevents" not in name and "checkpoints" not in name}


def test_the_same_files_are_left_and_none_twice(made):
    one, two = made
    assert files_of(one) == files_of(two)
    assert not [name for name in files_of(two) if name.endswith(".part")]
    assert {f"samples/guided/0000{i}.mp4" for i in range(3)} <= files_of(two)


def test_data_latents_and_fakes_are_the_same(made):
    one, two = made
    records = [name for name in files_of(one) if name.startswith("data") and "array_record" in name]
    assert records and all((one / n).read_bytes() == (two / n).read_bytes() for n in records)
    for name, count in (("latents", 7), ("prepare/fakes", 5)):
        ours, theirs = (read_cache(open_cache(folder / name)) for folder in (two, one))
        assert {len(x) for x in ours.values()} == {count}
        for key, x in theirs.items():
            np.testing.assert_array_equal(ours[key], x, err_msg=f"{name} {key}")


@pytest.mark.slow
def test_the_training_on_fakes_is_the_same(folders):
    """That of a base model is in the tests of `parallel`."""
    run_by_one_and_two(folders, "train")
    one, two = (folder / "train" for folder in folders[:2])
    assert files_of(one) == files_of(two)
    ours, theirs = (loss_trace(read_metrics(folder)) for folder in (two, one))
    assert len(theirs) == 3
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    weights, expected = (load_file(folder / "weights.safetensors") for folder in (two, one))
    assert set(weights) == set(expected)
    for name, x in expected.items():
        # Adam makes steps of full length of the rounding errors where a gradient is zero.
        room = 2e-4 if name.endswith("qkv.bias") else 1e-5
        np.testing.assert_allclose(weights[name], x, atol=room, rtol=1e-5, err_msg=name)


def test_samples_and_measures_are_the_same(made):
    one, two = (folder / "samples" for folder in made)
    for variant in ("independent", "guided"):
        ours, theirs = (read_all(folder / variant) for folder in (two, one))
        for key in ("video", "audio"):
            np.testing.assert_array_equal(ours[key], theirs[key])
    ours, theirs = (json.loads((folder / "metrics.json").read_text()) for folder in (two, one))
    assert theirs["rows"] and ours["rows"] == theirs["rows"]


def cannot_measure(system: Any, workdir: Path) -> None:
    """A mode whose first process fails, while the other waits for it."""
    if not jax.process_index():
        raise ValueError("cannot measure this")
    wait("all is measured")


def _main(arguments: list[str], environment: dict[str, str], told: Path) -> None:
    os.environ.update(environment)
    with told.open("w") as file:
        os.dup2(file.fileno(), 2)
        cli.main(arguments)


def test_an_error_in_one_process_is_one_sentence_in_both(tmp_path):
    mode = f"{__name__}:{cannot_measure.__name__}"
    arguments = ["launch.py", mode, "--config=bounce", f"--workdir={tmp_path}"]
    address = processes.free_address()
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    both = []
    for i in range(2):
        environment = dict(zip(names, (address, "2", str(i)), strict=True))
        told = tmp_path / f"told_{i}"
        both.append(processes.start(_main, arguments, environment, told))
    assert [processes.finish(process, 60) for process in both] == [1, 1]
    first, second = ((tmp_path / f"told_{i}").read_text() for i in range(2))
    assert "error: cannot measure this" in first
    assert "error: process 0 of 2 stopped with ValueError: cannot measure this" in second
