# SPDX-License-Identifier: Apache-2.0
"""MM-Diffusion trained on media files: the loss falls, and a kill at any step changes nothing.

With MMDISCO_MEDIA_DIR set, on the files there; else on files that the test writes.
"""

import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from mmdisco_jax.experiment import load_config
from mmdisco_jax.media.prepare import prepare
from mmdisco_jax.training.metrics_log import loss_trace, read_metrics
from tests.support import training_processes as processes
from tests.support.experiments import run_mode
from tests.support.media_seeds import write_seed

STEPS, KILLS = 100, 4

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Any:
    base = tmp_path_factory.mktemp("joint")
    media = os.environ.get("MMDISCO_MEDIA_DIR", "")
    if not media:
        media = str(base / "media")
        Path(media).mkdir()
        for seed in range(6):
            write_seed(Path(media) / f"{seed}.mp4", seconds=3.6, seed=seed)
    config: Any = load_config(f"configs/folder_mm_diffusion.py:{media}")
    config.data.dir = str(base / "data")
    config.train.update(num_steps=STEPS, warmup_steps=5, batch_size=4, log_every=5, save_every=10)
    prepare("folder", config.data.dir, **config.data.options)
    return config


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("trained")
    run_mode("train", config, workdir)
    return workdir


def test_the_loss_falls(trained):
    trace = np.array(loss_trace(read_metrics(trained)))
    assert len(trace) == STEPS and np.isfinite(trace).all()
    print(
        f"loss: {trace[:20].mean():.3f} over the first 20 steps, {trace[-20:].mean():.3f} at last"
    )
    assert trace[-20:].mean() < 0.7 * trace[:20].mean()


def test_killed_at_random_steps_it_ends_with_the_same_bits(config, trained, tmp_path):
    rng, log = random.Random(time.time_ns()), tmp_path / "metrics.jsonl"
    for _ in range(KILLS):
        size = log.stat().st_size if log.exists() else 0
        process = processes.start(run_mode, "train", config, tmp_path)
        while process.is_alive() and size == (log.stat().st_size if log.exists() else 0):
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 20))
        process.kill()
        process.join()
    last = processes.start(run_mode, "train", config, tmp_path)
    assert processes.finish(last, timeout=1200) == 0
    assert loss_trace(read_metrics(tmp_path)) == loss_trace(read_metrics(trained))
    ours, theirs = (load_file(path / "weights.safetensors") for path in (tmp_path, trained))
    assert {name: x.tobytes() for name, x in ours.items()} == {
        name: x.tobytes() for name, x in theirs.items()
    }
