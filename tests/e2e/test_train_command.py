# SPDX-License-Identifier: Apache-2.0
"""`train` on a shrunken bounce config: what it leaves, and that it goes on after a stop."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import matplotlib.image
import numpy as np
import pytest
from safetensors.numpy import load_file

from mmdisco_jax.experiment import load_config
from mmdisco_jax.inputs.cache import StaleCacheError
from mmdisco_jax.media.prepare import prepare
from mmdisco_jax.porting.weights import load_weights, read_metadata
from mmdisco_jax.tasks import train
from mmdisco_jax.tasks.latents import training_examples, write_latents
from mmdisco_jax.training.checkpoints import CheckpointError
from mmdisco_jax.training.metrics_log import loss_trace, read_metrics
from tests.support import training_processes as processes
from tests.support.experiments import run_mode, system_of

STEPS = 5


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Any:
    config: Any = load_config("configs/bounce.py:audio")
    config.data.dir = str(tmp_path_factory.mktemp("data"))
    config.data.options.update(num_train=16, num_test=2, seed=0)
    config.bases.audio.update(width=32, depth=1, num_heads=2)
    config.train.update(
        num_steps=STEPS, warmup_steps=2, batch_size=8, log_every=2, save_every=2, keep=2
    )
    options: Any = config.data.options
    prepare("bounce", config.data.dir, **options)
    return config


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory) -> Iterator[Path]:
    workdir = tmp_path_factory.mktemp("run")
    with processes.compilation_cache(tmp_path_factory.mktemp("compiled")):
        run_mode("train", config, workdir)
        yield workdir


def first_loss(config: Any) -> float:
    """The loss of the first batch and the initial parameters, without the training's machinery."""
    system = system_of(config)
    loss = system.loss("audio")
    batch = next(train.batches(system, training_examples(system)))
    key, params = jax.random.key(config.seed + 1), loss.init(jax.random.key(config.seed))
    first = jax.random.fold_in(key, 0)
    return float(jax.jit(loss.loss_fn)(params, loss.frozen, batch, first, 0, loss.history)[0])


def test_a_run_leaves_weights_config_report_and_metrics(config, trained):
    metadata = read_metadata(trained / "weights.safetensors")
    assert metadata["target"] == "audio" and metadata["step"] == str(STEPS)
    assert metadata["seed"] == "0" and metadata["commit"]
    resolved = json.loads((trained / "config.json").read_text())
    assert resolved == json.loads(metadata["config"]) == json.loads(config.to_json())
    init = system_of(config).loss("audio").init
    weights = load_weights(trained / "weights.safetensors", jax.eval_shape(init, jax.random.key(0)))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(weights))
    assert train.start_params(system_of(config), init) is None
    other = config.copy_and_resolve_references()
    other.train.init_from = str(trained / "weights.safetensors")
    jax.tree.map(np.testing.assert_array_equal, train.start_params(system_of(other), init), weights)
    assert matplotlib.image.imread(trained / "report.png").shape[1] > 1000
    trace = loss_trace(read_metrics(trained))
    assert len(trace) == STEPS
    np.testing.assert_allclose(trace[0], first_loss(config), rtol=1e-5)


def test_cached_latents_train_as_clips_do(config, tmp_path):
    plain = config.copy_and_resolve_references()
    plain.data.flip = "off"
    plain.train.save_every = STEPS
    cached = plain.copy_and_resolve_references()
    cached.data.latents = str(tmp_path / "latents")
    assert write_latents(system_of(cached))["examples"] == 16
    traces = []
    for number, one in enumerate((plain, cached)):
        run_mode("train", one, tmp_path / str(number))
        traces.append(loss_trace(read_metrics(tmp_path / str(number))))
    np.testing.assert_allclose(traces[1], traces[0], rtol=1e-4)
    with pytest.raises(ValueError, match=r"flip is 'half'.*cannot be mirrored"):
        mirrored = cached.copy_and_resolve_references()
        mirrored.data.flip = "half"
        training_examples(system_of(mirrored))
    with pytest.raises(StaleCacheError, match="latents is stale: it was made with codecs"):
        other = cached.copy_and_resolve_references()
        other.bases.audio.codec.low = -5.0
        training_examples(system_of(other))


def test_after_sigterm_the_same_command_ends_with_the_same_files(
    config, trained, tmp_path, monkeypatch
):
    def stopping_iterator(*args, **kwargs):
        batches = make(*args, **kwargs)

        class Stopping:
            get_state, set_state = batches.get_state, batches.set_state

            def __next__(self):
                if self.get_state()["next_index"] == 2:
                    os.kill(os.getpid(), signal.SIGTERM)
                return next(batches)

        return Stopping()

    make = train.make_train_iterator
    monkeypatch.setattr(train, "make_train_iterator", stopping_iterator)
    with pytest.raises(SystemExit) as caught:
        run_mode("train", config, tmp_path)
    assert caught.value.code == 128 + signal.SIGTERM
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [2, 3]
    assert not (tmp_path / "weights.safetensors").exists()
    monkeypatch.undo()
    run_mode("train", config, tmp_path)
    assert loss_trace(read_metrics(tmp_path)) == loss_trace(read_metrics(trained))
    assert (tmp_path / "config.json").read_bytes() == (trained / "config.json").read_bytes()
    ours, theirs = (load_file(path / "weights.safetensors") for path in (tmp_path, trained))
    assert {name: x.tobytes() for name, x in ours.items()} == {
        name: x.tobytes() for name, x in theirs.items()
    }


def test_a_workdir_of_another_config_is_refused(config, trained):
    other = config.copy_and_resolve_references()
    other.train.learning_rate = 0.5
    other.train.log_every = 1
    before = (trained / "metrics.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match=r"train.learning_rate was 0.0015, now 0.5") as caught:
        run_mode("train", other, trained)
    assert "log_every" not in str(caught.value)
    assert (trained / "metrics.jsonl").read_bytes() == before
