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

from configs.folder import get_config
from mmdisco_jax import build
from mmdisco_jax.commands import train
from mmdisco_jax.media.prepare import prepare
from mmdisco_jax.training.metrics_log import loss_trace, read_metrics
from tests.support import training_processes as processes
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
    config: Any = get_config(f"{base / 'media'},video")
    config.data.dir = str(base / "data")
    config.data.options.update(clip_seconds=1.2, height=16, width=16, test_fraction=0.2)
    config.clip.seconds = 0.4
    with config.unlocked():
        config.mesh = {"data": -1, "fsdp": 1}
    config.bases.video.update(sample_shape=(4, 16, 16, 3), width=32, depth=1, num_heads=2)
    config.train.update(
        num_steps=STEPS, warmup_steps=2, batch_size=4, log_every=4, save_every=3, restore="latest"
    )
    prepare("folder", config.data.dir, **config.data.options)
    return config


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("trained")
    train.run(config, workdir)
    return workdir


def test_training_takes_windows_of_the_clips_of_any_folder(config):
    source = build.training_examples(config)
    record = source[0]
    assert (record["video"].shape, record["audio"].shape) == ((12, 16, 16, 3), (19_200,))
    batch = next(train._batches(config, source, build.window(config, source)))
    assert (batch["video"].shape, batch["audio"].shape) == ((4, 4, 16, 16, 3), (4, 6_400))
    loss_fn, init, frozen = build.training_task(config)
    loss, _ = jax.eval_shape(loss_fn, init(jax.random.key(0)), frozen, batch, jax.random.key(1), 0)
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
        process = processes.start(train.run, config, tmp_path)
        begun = rng.random() < 0.7  # else it is killed while it starts
        while begun and process.is_alive() and size == (log.stat().st_size if log.exists() else 0):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5 if begun else 8.0))
        process.kill()
        process.join()
    assert processes.call(train.run, config, tmp_path) == 0
    assert loss_trace(read_metrics(tmp_path)) == loss_trace(read_metrics(trained))
    ours, theirs = (load_file(path / "weights.safetensors") for path in (tmp_path, trained))
    assert {name: x.tobytes() for name, x in ours.items()} == {
        name: x.tobytes() for name, x in theirs.items()
    }
