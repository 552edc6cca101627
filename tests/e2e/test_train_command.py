# SPDX-License-Identifier: Apache-2.0
"""`train` on a shrunken bounce config: what it leaves, and that it goes on after a stop."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import matplotlib.image
import numpy as np
import orbax.checkpoint as ocp
import pytest
from safetensors.numpy import load_file, save_file

from mmdisco_jax.experiment import load_config
from mmdisco_jax.inputs.cache import StaleCacheError
from mmdisco_jax.media.prepare import prepare
from mmdisco_jax.porting.weights import load_weights, read_metadata
from mmdisco_jax.tasks import train
from mmdisco_jax.tasks.latents import training_examples, write_latents
from mmdisco_jax.training.checkpoints import CheckpointError
from mmdisco_jax.training.manifest import write_manifest
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
    assert resolved == json.loads(metadata["config"]) == system_of(config).experiment.resolved
    assert resolved["bases"] == json.loads(config.to_json())["bases"]
    init = system_of(config).loss("audio").init
    weights = load_weights(trained / "weights.safetensors", jax.eval_shape(init, jax.random.key(0)))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(weights))
    assert train.start_params(system_of(config), init) is None
    other = config.copy_and_resolve_references()
    other.train.init_from = str(trained / "weights.safetensors")
    read: Any = train.start_params(system_of(other), init)
    jax.tree.map(np.testing.assert_array_equal, read(None), weights)
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


def copied(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_other_data_are_refused_or_taken_by_choice(config, trained, tmp_path):
    """Row 2 of the trials: a folder that was prepared again with more files went unnoticed."""
    workdir = copied(trained, tmp_path)
    more: Any = config.copy_and_resolve_references()
    options = {**config.data.options, "num_train": 20}
    more.data.prepared = prepare("bounce", tmp_path / "more", **options)["directory"]
    more.train.num_steps = STEPS + 2
    said = r"made with others: data was .*train16_.*\[sha256 .*now .*train20_.*on_new_data=continue"
    with pytest.raises(CheckpointError, match=said):
        run_mode("train", more, workdir)
    more.train.on_new_data = "go on"
    with pytest.raises(ValueError, match="on_new_data is 'go on': choose one of refuse, continue"):
        run_mode("train", more, workdir)
    more.train.on_new_data = "continue"
    run_mode("train", more, workdir)
    made_by = json.loads(read_metadata(workdir / "weights.safetensors")["made_by"])
    assert "train20" in made_by["data"]["path"]
    (earlier,) = made_by["earlier"]
    assert earlier["until_step"] == STEPS and "train16" in earlier["data"]["path"]


def test_data_that_were_moved_are_the_same_data(config, trained, tmp_path, capsys):
    workdir = copied(trained, tmp_path)
    moved: Any = config.copy_and_resolve_references()
    moved.data.prepared = str(
        shutil.copytree(system_of(config).data_folder, tmp_path / "moved" / "1.0.0")
    )
    run_mode("train", moved, workdir)
    made_by = json.loads(read_metadata(workdir / "weights.safetensors")["made_by"])
    before = json.loads(read_metadata(trained / "weights.safetensors")["made_by"])
    assert made_by["data"]["sha256"] == before["data"]["sha256"]
    assert f"using data: {moved.data.prepared} [sha256 " in capsys.readouterr().err


def test_a_finished_training_leaves_its_weights_as_they_are(config, trained, tmp_path, monkeypatch):
    """Another version of the code would give them another digest, and refuse their samples."""
    workdir = copied(trained, tmp_path)
    before = (workdir / "weights.safetensors").read_bytes()
    monkeypatch.setattr("mmdisco_jax.__version__", "9")
    run_mode("train", config, workdir)
    assert (workdir / "weights.safetensors").read_bytes() == before
    (workdir / "weights.safetensors").unlink()
    run_mode("train", config, workdir)
    again = read_metadata(workdir / "weights.safetensors")
    assert json.loads(again["made_by"])["version"] == "9"
    assert json.loads(again["made_by"])["earlier"][0]["version"] != "9"


def test_a_training_is_extended_with_its_optimizer(config, trained, tmp_path):
    workdir = copied(trained, tmp_path)
    longer: Any = config.copy_and_resolve_references()
    longer.train.num_steps = STEPS + 2
    run_mode("train", longer, workdir)
    assert read_metadata(workdir / "weights.safetensors")["step"] == str(STEPS + 2)
    trace, before = (loss_trace(read_metrics(path)) for path in (workdir, trained))
    assert len(trace) == STEPS + 2 and trace[:STEPS] == before
    moments = [
        float(np.sum([np.abs(x).sum() for x in jax.tree.leaves(restored_moments(config, path))]))
        for path in (trained, workdir)
    ]
    assert moments[1] > 0.1 * moments[0]
    with pytest.raises(CheckpointError, match=f"num_steps was {STEPS + 2}, now {STEPS}"):
        run_mode("train", config, workdir)


def restored_moments(config: Any, workdir: Path) -> Any:
    """Second moments of Adam in the last checkpoint."""
    step = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    state: Any = ocp.StandardCheckpointer().restore(
        (workdir / "checkpoints" / str(step) / "state").absolute()
    )
    return [leaf for name, leaf in state.items() if ".nu." in name]


def test_other_initial_weights_are_refused_even_under_the_same_name(config, trained, tmp_path):
    start = tmp_path / "start.safetensors"
    shutil.copy(trained / "weights.safetensors", start)
    given: Any = config.copy_and_resolve_references()
    given.train.init_from = str(start)
    given.train.num_steps, given.train.warmup_steps = 1, 0
    run_mode("train", given, tmp_path / "run")
    params = {name: x + 1 for name, x in load_file(start).items()}
    save_file(params, start)
    given.train.num_steps = 2
    with pytest.raises(CheckpointError, match=r"weights.init_from was .*\[sha256 .*, now .*start"):
        run_mode("train", given, tmp_path / "run")


def test_a_checkpoint_without_a_record_is_used_and_says_so(config, trained, tmp_path, capsys):
    """As an older release wrote them."""
    workdir = copied(trained, tmp_path)
    for step in (workdir / "checkpoints").iterdir():
        shutil.rmtree(step / "made_by")
        write_manifest(step, ignored=("_CHECKPOINT_METADATA", "commit_success.txt"))
    moved: Any = config.copy_and_resolve_references()
    moved.weights.video = "elsewhere"
    with pytest.raises(CheckpointError, match=r"weights.video was"):  # by the path, as before
        run_mode("train", moved, workdir)
    (workdir / "weights.safetensors").unlink()
    run_mode("train", config, workdir)
    assert "does not record what data and weights" in capsys.readouterr().err
    made_by = json.loads(read_metadata(workdir / "weights.safetensors")["made_by"])
    assert made_by["earlier"] == [{"until_step": STEPS}]


def test_latents_of_clips_that_changed_are_stale(config, tmp_path):
    """Their folder was named after the dataset's options alone."""
    cached: Any = config.copy_and_resolve_references()
    cached.data.flip, cached.data.latents = "off", str(tmp_path / "latents")
    write_latents(system_of(cached))
    options = {**config.data.options, "num_train": 17}
    made = Path(prepare("bounce", tmp_path / "more", **options)["directory"])
    cached.data.prepared = str(made.rename(tmp_path / made.parent.name))
    with pytest.raises(StaleCacheError, match="latents is stale: it was made with clips"):
        training_examples(system_of(cached))


def test_a_workdir_of_another_config_is_refused(config, trained):
    other = config.copy_and_resolve_references()
    other.train.learning_rate = 0.5
    other.train.log_every = 1
    before = (trained / "metrics.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match=r"train.learning_rate was 0.0015, now 0.5") as caught:
        run_mode("train", other, trained)
    assert "log_every" not in str(caught.value)
    assert (trained / "metrics.jsonl").read_bytes() == before
