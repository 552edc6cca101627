# SPDX-License-Identifier: Apache-2.0
"""Sharding of arrays, which changes no number."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from mmdisco_jax import parallel
from mmdisco_jax.training.metrics_log import loss_trace, read_metrics
from tests.support import toy_training as toy
from tests.support import training_processes as processes

MESH = AbstractMesh((2, 4), parallel.AXES)


@pytest.fixture(scope="module", autouse=True)
def compilation_cache(tmp_path_factory):
    with processes.compilation_cache(tmp_path_factory.mktemp("compiled")):
        yield


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """A run on one device."""
    workdir = tmp_path_factory.mktemp("alone")
    toy.keep_final(workdir, toy.run(workdir))
    return workdir


def assert_agree(workdir: Path, alone: Path) -> None:
    ours, theirs = (loss_trace(read_metrics(path)) for path in (workdir, alone))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    final, expected = (np.load(path / "final.npz") for path in (workdir, alone))
    assert set(final) == set(expected)
    for name in expected:
        np.testing.assert_allclose(final[name], expected[name], atol=1e-5, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((256, 1024), PartitionSpec(None, "fsdp")),  # the largest
        ((1024, 254), PartitionSpec("fsdp")),
        ((256, 1022), PartitionSpec("fsdp")),  # the largest that four divide
        ((255, 1022), PartitionSpec()),
        ((64, 64), PartitionSpec()),  # too small to be worth it
        ((), PartitionSpec()),
    ],
)
def test_the_largest_divisible_dimension_is_cut(shape, spec):
    assert parallel.largest_dimension(shape, MESH) == spec


def test_rules_go_in_order_and_reach_averages_and_moments():
    rules = ((r"first$", PartitionSpec("data")), (r".*", parallel.largest_dimension))
    task = toy.task()
    state = jax.eval_shape(
        lambda key: (task.init(key), task.optimizer.init(task.init(key))), jax.random.key(0)
    )
    placed = parallel.named_leaves(parallel.tree_shardings(state, MESH, rules))
    specs = {name: sharding.spec for name, sharding in placed.items()}
    assert {specs[name] for name in specs if name.endswith("first")} == {PartitionSpec("data")}
    assert {specs[name] for name in specs if name.endswith("second")} == {PartitionSpec("fsdp")}
    assert len(specs) == 8 and "1.1.0.mu.second" in specs
    with pytest.raises(ValueError, match=r"no sharding rule matches '0.second'"):
        parallel.tree_shardings(state, MESH, rules[:1])


def test_names_and_leaves_go_back_and_forth():
    tree = {"a": [np.zeros(1), {"b": np.ones(2)}]}
    leaves = parallel.named_leaves(tree)
    assert set(leaves) == {"a.0", "a.1.b"}
    assert parallel.from_named_leaves(tree, leaves)["a"][1]["b"] is tree["a"][1]["b"]
    with pytest.raises(ValueError, match=r"two leaves are called 'a.b'"):
        parallel.named_leaves({"a.b": 1, "a": {"b": 2}})


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ({"data": 1}, "must have"),
        ({"data": -1, "fsdp": -1}, "one of them may be -1"),
        ({"data": 0, "fsdp": 1}, "must be >= 1"),
        ({"data": 3, "fsdp": -1}, "does not fit 1 device"),
        ({"data": 2, "fsdp": 1}, "must multiply to 1"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(shape, says):
    with pytest.raises(ValueError, match=says):
        parallel.make_mesh(shape, devices=jax.devices()[:1])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("localhost:1", 2, None), r"missing: \['JAX_PROCESS_ID'\]"),
        ((None, 2, 0), r"missing: \['JAX_COORDINATOR_ADDRESS'\]"),
        (("localhost:1", 2, 2), r"0..JAX_NUM_PROCESSES-1, got '2' of '2'"),
    ],
)
def test_half_a_cluster_is_refused(monkeypatch, given, says):
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=says):
        parallel.initialize_distributed(*given)
    parallel.initialize_distributed()  # nothing to do


def _uneven_batch(workdir: Path) -> None:
    try:
        parallel.shard_batch({"x": np.zeros((12, 2))}, parallel.make_mesh({"data": -1, "fsdp": 1}))
    except ValueError as error:
        (workdir / "error").write_text(str(error))


def test_eight_devices_train_as_one(tmp_path, alone):
    assert processes.call(toy.run_on_mesh, tmp_path, {"data": 2, "fsdp": 4}, devices=8) == 0
    assert_agree(tmp_path, alone)
    assert processes.call(_uneven_batch, tmp_path, devices=8) == 0
    assert "[12] rows per process cannot be shared by 8" in (tmp_path / "error").read_text()


@pytest.mark.slow
def test_a_loss_with_a_memory_is_cut_over_devices_too(tmp_path):
    toy.keep_final(tmp_path, toy.run(tmp_path, remembers=True, num_steps=4))
    cut, options = tmp_path / "cut", {"remembers": True, "num_steps": 4}
    cut.mkdir()
    assert processes.call(toy.run_on_mesh, cut, {"data": 1, "fsdp": 2}, devices=2, **options) == 0
    assert_agree(cut, tmp_path)
    assert np.load(cut / "final.npz")["memory.counts"].tolist() == [3] * 4


def test_two_processes_train_as_one_and_one_process_can_go_on(tmp_path, alone):
    address, mesh = processes.free_address(), {"data": 2, "fsdp": 1}
    pair = [processes.start(toy.run_on_mesh, tmp_path, mesh, address, 2, i) for i in range(2)]
    assert [processes.finish(process) for process in pair] == [0, 0]
    assert_agree(tmp_path, alone)
    assert json.loads((tmp_path / "checkpoints" / "9" / "data" / "metadata").read_text())
    toy.keep_final(tmp_path, toy.run(tmp_path, restore="9"))
    assert_agree(tmp_path, alone)


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_stops_both_at_one_step(tmp_path, alone):
    address = processes.free_address()
    pair = [processes.start(toy.run_until_told, tmp_path, address, i) for i in range(2)]
    assert [processes.finish(process) for process in pair] == [3, 3]
    stopped = read_metrics(tmp_path)[-1]["step"]
    assert 3 <= stopped < 12
    assert (tmp_path / "checkpoints" / str(stopped) / "manifest.json").exists()
    toy.keep_final(tmp_path, toy.run(tmp_path))
    assert_agree(tmp_path, alone)
