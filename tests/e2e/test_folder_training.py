# SPDX-License-Identifier: Apache-2.0
"""From media files to trained weights, on windows of longer clips; and killed on the way."""

import random
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from mmdisco_jax.experiment import load_config
from mmdisco_jax.media.prepare import prepare
from mmdisco_jax.tasks import train
from mmdisco_jax.tasks.latents import training_examples
from mmdisco_jax.training.metrics_log import loss_trace, read_metrics
from tests.support import training_processes as processes
from tests.support.experiments import run_mode, system_of
from tests.support.media_seeds import write_seed

STEPS = 24
FORMS = ("mp4", "webm", "mkv", "avi", "ts")


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Any:
    """Clips of 1.2 s of five files, from which training draws windows of 0.4 s."""
    base = tmp_path_factory.mktemp("folder")
    (base / "media").mkdir()
    for seed, form in enumerate(FORMS):
        write_seed(base / "media" / f"{seed}.{form}", seconds=2.6, seed=seed)
    arguments = f"path={base / 'media'},train=video,seconds=1.2,size=16"
    config: Any = load_config(f"configs/folder.py:{arguments}")
    config.data.dir = str(base / "data")
    config.data.options.test_fraction = 0.2
    config.clip.seconds = 0.4
    config.bases.video.update(width=32, depth=1, num_heads=2)
    config.train.update(num_steps=STEPS, warmup_steps=2, batch_size=4, log_every=4, save_every=3)
    prepare("folder", config.data.dir, **config.data.options)
    return config


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("trained")
    run_mode("train", config, workdir)
    return workdir


def test_training_takes_windows_of_the_clips_of_any_folder(config):
    system = system_of(config)
    assert system.shapes["video"] == (4, 16, 16, 3)
    source = training_examples(system)
    record = source[0]
    assert (record["video"].shape, record["audio"].shape) == ((12, 16, 16, 3), (19_200,))
    batch = next(train.batches(system, source))
    assert (batch["video"].shape, batch["audio"].shape) == ((4, 4, 16, 16, 3), (4, 6_400))
    loss_fn, init, frozen, history = system.loss("video")
    params, key = init(jax.random.key(0)), jax.random.key(1)
    loss, *_ = jax.eval_shape(loss_fn, params, frozen, batch, key, 0, history)
    assert loss.shape == ()


@pytest.mark.slow
def test_any_folder_trains_on_windows_of_its_clips(trained):
    trace = loss_trace(read_metrics(trained))
    assert len(trace) == STEPS and np.isfinite(trace).all()
    shares = [row["data_wait_share"] for row in read_metrics(trained)]
    assert all(0 <= share < 1 for share in shares)


@pytest.mark.slow
def test_killed_twenty_times_the_training_ends_with_the_same_loss_trace(config, trained, tmp_path):
    rng, log = random.Random(0), tmp_path / "metrics.jsonl"
    for _ in range(20):
        size = log.stat().st_size if log.exists() else 0
        process = processes.start(run_mode, "train", config, tmp_path)
        begun = rng.random() < 0.7  # else it is killed while it starts
        while begun and process.is_alive() and size == (log.stat().st_size if log.exists() else 0):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5 if begun else 8.0))
        process.kill()
        process.join()
    assert processes.call(run_mode, "train", config, tmp_path) == 0
    assert loss_trace(read_metrics(tmp_path)) == loss_trace(read_metrics(trained))
    ours, theirs = (load_file(path / "weights.safetensors") for path in (tmp_path, trained))
    assert {name: x.tobytes() for name, x in ours.items()} == {
        name: x.tobytes() for name, x in theirs.items()
    }
