# SPDX-License-Identifier: Apache-2.0
"""A run that was stopped, killed or out of disk goes on as if nothing had happened."""

import os
import random
import resource
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from mmdisco_jax.training.checkpoints import CheckpointError
from mmdisco_jax.training.loop import StoppedError
from mmdisco_jax.training.metrics_log import loss_trace, read_metrics
from tests.support import toy_training as toy
from tests.support import training_processes as processes

STEPS = 12


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> tuple[dict[str, np.ndarray], list[float]]:
    """Final state and loss of every step of a run that nothing disturbs."""
    workdir = tmp_path_factory.mktemp("uninterrupted")
    final = toy.run(workdir)
    trace = loss_trace(read_metrics(workdir))
    assert len(trace) == STEPS and trace[-1] < trace[0]
    return final, trace


def assert_same_run(workdir: Path, final: dict[str, np.ndarray], expected) -> None:
    state, trace = expected
    rows = read_metrics(workdir)
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows})
    assert loss_trace(rows) == trace
    assert final.keys() == state.keys()
    for name, array in state.items():
        assert array.tobytes() == final[name].tobytes(), name


def test_after_sigkill_at_random_steps_the_run_ends_bit_for_bit_the_same(tmp_path, uninterrupted):
    kills = sorted(random.sample(range(2, STEPS + 1), 3))
    print("killed before the steps", kills)
    for step in kills:
        assert processes.call(toy.run_and_die, tmp_path, step) == -signal.SIGKILL
    assert processes.call(toy.run_and_keep, tmp_path) == 0
    assert_same_run(tmp_path, dict(np.load(tmp_path / "final.npz")), uninterrupted)


@pytest.mark.slow
def test_after_sigkill_at_random_times_the_run_ends_bit_for_bit_the_same(tmp_path, uninterrupted):
    """A checkpoint at every step: most of these kills fall into the writing of one."""
    log = tmp_path / "metrics.jsonl"
    for _ in range(8):
        size = log.stat().st_size if log.exists() else 0
        process = processes.start(toy.run_and_keep, tmp_path, save_every=1)
        while process.is_alive() and (not log.exists() or log.stat().st_size == size):
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.6))
        process.kill()
        process.join()
    assert processes.call(toy.run_and_keep, tmp_path) == 0
    assert_same_run(tmp_path, dict(np.load(tmp_path / "final.npz")), uninterrupted)


def test_signals_checkpoint_first(tmp_path, uninterrupted):
    for step, number in ((5, signal.SIGTERM), (8, signal.SIGINT)):
        before = signal.getsignal(number)
        stopped = toy.Batches(
            step, lambda batch, number=number: os.kill(os.getpid(), number) or batch
        )
        with pytest.raises(StoppedError, match=f"{number.name} at step {step}: a checkpoint") as e:
            toy.run(tmp_path, stopped)
        assert (e.value.step, e.value.signal) == (step, number)
        assert signal.getsignal(number) is before
        assert (tmp_path / "checkpoints" / str(step) / "manifest.json").exists()
    assert_same_run(tmp_path, toy.run(tmp_path), uninterrupted)


def test_what_the_loss_remembers_is_part_of_the_checkpoint(tmp_path, uninterrupted):
    whole = toy.run(tmp_path / "whole", remembers=True)
    assert whole["history.counts"].tolist() == [3] * 4 and whole["history.losses"].shape == (4, 3)
    assert not any(name.startswith("history") for name in uninterrupted[0])
    stopped = toy.Batches(5, lambda batch: os.kill(os.getpid(), signal.SIGTERM) or batch)
    with pytest.raises(StoppedError):
        toy.run(tmp_path / "cut", stopped, remembers=True)
    trace = loss_trace(read_metrics(tmp_path / "whole"))
    assert_same_run(tmp_path / "cut", toy.run(tmp_path / "cut", remembers=True), (whole, trace))
    with pytest.raises(CheckpointError, match=r"history.losses is .* there and absent here"):
        toy.run(tmp_path / "cut")


def _run_on_a_full_disk(workdir: Path) -> None:
    def full(batch):
        while not (workdir / "checkpoints" / "3").exists():  # it is written in the background
            time.sleep(0.05)
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
        return batch

    try:
        toy.run(workdir, toy.Batches(5, full))
    except Exception as error:
        (workdir / "error").write_text(f"{type(error).__name__}: {error}")
        raise SystemExit(7) from error


def test_a_full_disk_stops_the_run_and_spares_the_last_checkpoint(tmp_path, uninterrupted):
    assert processes.call(_run_on_a_full_disk, tmp_path) == 7
    error = (tmp_path / "error").read_text()
    assert error.startswith("CheckpointError: could not write a checkpoint")
    assert "the last good one is of step 3" in error and "Free disk space" in error
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["3"]
    assert_same_run(tmp_path, toy.run(tmp_path), uninterrupted)
