# SPDX-License-Identifier: Apache-2.0
"""One owner of a workdir at a time, and none after a kill."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmdisco_jax import locks
from mmdisco_jax.locks import InUseError, locked, one_owner
from mmdisco_jax.tasks import evaluate, prepare, sample, train
from tests.support import training_processes as processes


def _hold(folder: Path) -> None:
    with locked(folder, purpose="train"):
        (folder / "held").touch()
        time.sleep(60)


def test_a_second_run_is_told_who_works_there_and_a_killed_one_blocks_nobody(tmp_path):
    """Row 6 of the trials: both runs ended with status 0 and mixed their files."""
    process = processes.start(_hold, tmp_path)
    try:
        while not (tmp_path / "held").exists():
            assert process.is_alive()
            time.sleep(0.02)
        said = rf"is in use: `train`, process {process.pid} on \S+ since [-\d]+ [:\d]+, works there"
        for mode in (train, sample, evaluate, prepare):
            with pytest.raises(InUseError, match=said):
                mode.run(None, tmp_path)  # pyright: ignore[reportArgumentType]
    finally:
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
    with locked(tmp_path, wait=False):
        pass


def test_a_mode_owns_its_workdir_while_it_runs_even_if_it_fails(tmp_path):
    @one_owner
    def mode(system, workdir):
        with pytest.raises(InUseError, match="works there"), locked(workdir, wait=False):
            raise AssertionError
        raise system

    for error in (ValueError(), KeyboardInterrupt(), SystemExit(3)):
        with pytest.raises(type(error)):
            mode(error, tmp_path / "run")
        assert not list((tmp_path / "run").iterdir())


def test_many_runs_at_once_have_one_owner_at_a_time(tmp_path):
    """Each removes the file at its end, while the others open it."""
    inside, most, done = [], [], []

    @one_owner
    def mode(system, workdir):
        inside.append(system)
        most.append(len(inside))
        time.sleep(0.001)
        inside.remove(system)
        done.append(system)

    def run(number):
        while done.count(number) < 20:
            with contextlib.suppress(InUseError):
                mode(number, tmp_path)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(done) == 80 and max(most) == 1


def test_of_several_processes_only_the_first_holds_the_lock(tmp_path, monkeypatch):
    done = []
    mode = one_owner(lambda system, workdir: done.append(system))
    monkeypatch.setattr(locks, "jax", SimpleNamespace(process_index=lambda: 1))
    with locked(tmp_path):
        mode("second", tmp_path)
    assert done == ["second"]


def test_threads_of_one_process_exclude_each_other_and_can_wait(tmp_path):
    order = []

    def second():
        with locked(tmp_path):
            order.append("second")

    with locked(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(locks.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    done = []
    one_owner(lambda system, workdir: done.append(system))("only", tmp_path)
    assert done == ["only"]
    assert "without locks (No locks available): make sure" in capsys.readouterr().err
    with pytest.raises(OSError, match="No locks"), locked(tmp_path):
        raise AssertionError
