# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are damaged, or of another run, are refused by name; good ones are found."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from mmdisco_jax.parallel import make_mesh, named_leaves, tree_shardings, with_shardings
from mmdisco_jax.training.checkpoints import CheckpointError, Checkpoints
from mmdisco_jax.training.state import init_state
from tests.support import toy_training as toy

# Orbax's own notes of times: nothing in them is used.
UNUSED = {"_CHECKPOINT_METADATA", "commit_success.txt"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, dict[str, np.ndarray]]:
    workdir = tmp_path_factory.mktemp("trained")
    return workdir / "checkpoints", toy.run(workdir, keep=2)


@pytest.fixture
def copied(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained[0], tmp_path / "checkpoints"))


def abstract(rename: str = "second"):
    task = toy.task()

    def make(key):
        params = task.init(key)
        params[rename] = params.pop("second")
        return init_state(params, task.optimizer)

    state = jax.eval_shape(make, jax.random.key(0))
    mesh = make_mesh({"data": 1, "fsdp": 1}, devices=jax.devices()[:1])
    return with_shardings(state, tree_shardings(state, mesh))


def restore(directory: Path, *, config=toy.CONFIG, keep: int = 2, wanted=None, **options) -> Any:
    with Checkpoints(directory, config, keep=keep) as checkpoints:
        return checkpoints.restore(wanted or abstract(), **options)


def files(step: Path) -> list[Path]:
    return [path for path in sorted(step.rglob("*")) if path.is_file()]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


def test_the_last_two_checkpoints_are_kept_with_data_and_config(trained):
    directory, final = trained
    assert sorted(path.name for path in directory.iterdir()) == ["12", "9"]
    state, data = restore(directory)
    assert data["next_index"] == 12
    for name, leaf in named_leaves(state).items():
        assert np.asarray(leaf).tobytes() == final[name].tobytes(), name
    assert json.loads((directory / "12" / "config" / "metadata").read_text()) == toy.CONFIG


def test_an_empty_folder_has_no_checkpoint_and_a_named_step_must_exist(copied, tmp_path):
    assert restore(tmp_path / "none") is None
    with pytest.raises(CheckpointError, match=r"train.restore is '7', .*\[9, 12\]"):
        restore(copied, which="7")
    with pytest.raises(ValueError, match=r"train.keep is 0; it must be at least 1"):
        restore(copied, keep=0)


def test_a_flipped_byte_in_any_file_is_refused_by_the_files_name(copied):
    step = copied / "12"
    used = [path for path in files(step) if path.name not in UNUSED]
    assert len(used) >= 8
    for path in used:
        good = path.read_bytes()
        flip(path)
        with pytest.raises(CheckpointError) as caught:
            restore(copied)
        message = str(caught.value)
        assert f"{step} is damaged" in message and "set train.restore=9" in message
        if path.name != "manifest.json":
            assert path.relative_to(step).as_posix() in message
        path.write_bytes(good)
    for path in set(files(step)) - set(used):
        flip(path)
    assert restore(copied) is not None


@pytest.mark.parametrize("harm", ["truncated", "missing", "no manifest"])
def test_a_truncated_or_missing_file_is_refused_by_name(copied, harm):
    largest = max(files(copied / "12"), key=lambda path: path.stat().st_size)
    if harm == "truncated":
        largest.write_bytes(largest.read_bytes()[:-1])
    else:
        largest = copied / "12" / "manifest.json" if harm == "no manifest" else largest
        largest.unlink()
    says = "bytes instead of" if harm == "truncated" else "is missing"
    with pytest.raises(CheckpointError, match=f"{largest.name}.*{says}"):
        restore(copied)


def test_the_previous_checkpoint_is_used_only_when_asked_for(copied):
    flip(copied / "12" / "state" / "_METADATA")
    before = {path: path.read_bytes() for path in files(copied)}
    with pytest.raises(CheckpointError, match=r"It was not used.*kept steps: \[9, 12\]"):
        restore(copied)
    assert {path: path.read_bytes() for path in files(copied)} == before
    state, data = restore(copied, which="9")
    assert (int(state.step), data["next_index"]) == (9, 9)
    assert [path.name for path in copied.iterdir()] == ["9"]


def test_another_config_is_refused_naming_the_keys_that_differ(copied):
    other = {"seed": 2, "train": {"num_steps": 12, "log_every": 7, "b2": 0.9}}
    with pytest.raises(CheckpointError, match="another config") as caught:
        restore(copied, config=other, free=("train.log_every",))
    message = str(caught.value)
    assert "seed was 1, now 2" in message and "train.b2 was 'absent', now 0.9" in message
    assert "num_steps" not in message and "log_every" not in message
    assert restore(copied, config=other, free=("seed", "train")) is not None


def test_another_structure_is_refused_naming_the_parameters(copied):
    with pytest.raises(CheckpointError, match="does not fit") as caught:
        restore(copied, wanted=abstract(rename="third"))
    assert "params.second is ((256, 64), 'float32') there and absent here" in str(caught.value)
    assert "params.third is absent there" in str(caught.value)
