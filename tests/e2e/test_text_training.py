# SPDX-License-Identifier: Apache-2.0
"""A discriminator for text models, end to end on captioned clips: prepare, train, sample, evaluate.

With MMDISCO_MEDIA_DIR set, on the files there; else on files that the test writes.
"""

import csv
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from mmdisco_jax.inputs.cache import open_cache
from mmdisco_jax.training.metrics_log import loss_trace, read_metrics
from tests.support import tiny_pipelines as tiny
from tests.support.experiments import run_mode
from tests.support.media_seeds import write_seed

pytestmark = pytest.mark.slow

STEPS, FAKES = 40, 16


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    given = os.environ.get("MMDISCO_MEDIA_DIR", "")
    if given:
        return Path(given)
    folder = tmp_path_factory.mktemp("media")
    for seed in range(6):
        write_seed(folder / f"{seed}.mp4", seconds=3.6, seed=seed)
    return folder


def test_from_captioned_clips_to_scores(media, tmp_path):
    start = time.monotonic()
    tiny.save(tmp_path / "models")
    table = tmp_path / "captions.csv"
    files = sorted(path.name for path in media.glob("*.mp4"))
    with table.open("w", newline="") as file:
        rows = [["file", "caption"], *([name, f"a {name.split('.')[0]}"] for name in files)]
        csv.writer(file).writerows(rows)
    models = tmp_path / "models"
    config = tiny.config(
        f"path={media},sampler=ddpm_50,dataset=folder", models / "audio", models / "video"
    )
    config.data.options.update(clip_seconds=tiny.SECONDS, table=str(table), test_fraction=0.4)
    config.data.update(dir=str(tmp_path / "data"), latents=str(tmp_path / "latents"))
    config.fakes.update(num_samples=FAKES, batch_size=8)
    config.train.update(num_steps=STEPS, warmup_steps=5, batch_size=8, learning_rate=1e-3)
    config.train.objective.update(groups=8, denoising_samples=4, denoising_from=20)
    run_mode("prepare", config, tmp_path)
    latents = open_cache(config.data.latents)[0]
    assert latents["text_audio"].shape == (tiny.CLAP_DIM,)
    assert latents["text_video"].shape == (tiny.LENGTH, tiny.CLIP_DIM)
    made = open_cache(tmp_path / "fakes")
    assert len(made) == FAKES and np.any(made[0]["text_video"] != made[9]["text_video"])

    config.weights.fakes = str(tmp_path / "fakes")
    run_mode("train", config, tmp_path / "discriminator")
    trace = np.array(loss_trace(read_metrics(tmp_path / "discriminator")))
    ce = [row["ce"] for row in read_metrics(tmp_path / "discriminator")]
    assert len(trace) == STEPS and np.isfinite(trace).all() and ce[-1] < ce[0]

    config.weights.discriminator = str(tmp_path / "discriminator" / "weights.safetensors")
    config.sample.update(prompts=("a ball", "rain"), samples_per_prompt=4, batch_size=4)
    run_mode("sample", config, tmp_path / "samples")
    # One video is held out: too few clips for distances of sets.
    config.evaluate.update(num_real=8, replicates=50, metrics=("av_align",))
    run_mode("evaluate", config, tmp_path / "samples")
    rows = json.loads((tmp_path / "samples" / "metrics.json").read_text())["rows"]
    assert set(rows) == {"real", "independent", "guided"}
    assert len(list((tmp_path / "samples" / "guided").glob("*.mp4"))) == 8
    print(f"{time.monotonic() - start:.0f} s; cross-entropy {ce[0]:.3f} to {ce[-1]:.3f}")
    assert time.monotonic() - start < 600
