# SPDX-License-Identifier: Apache-2.0
"""Jobs that crash, hang, eat memory or raise end alone; results come in order."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmdisco_jax.media.isolation import Failure, Limits, WorkError, isolated_map
from tests.support.isolation_jobs import do

ROOT = Path(__file__).resolve().parents[2]


def results(jobs, *, num_workers=2, patience_seconds=30.0, gib=2.0) -> list:
    limits = Limits(patience_seconds=patience_seconds, address_space_bytes=int(gib * 2**30))
    pairs = list(isolated_map(do, jobs, num_workers=num_workers, limits=limits))
    assert [index for index, _ in pairs] == list(range(len(jobs)))
    assert multiprocessing.active_children() == []
    return [result for _, result in pairs]


def test_whatever_ends_a_job_ends_no_other():
    ends = {
        "crash": "crashes the decoder (SIGSEGV)",
        "eat": "needs more memory than the 1 GiB it may have",
        "exit": "crashes the decoder (exit status 3)",
        "raise": "no such frame",
        "return what cannot be sent": "<lambda>",
        "be killed": "was killed, by the system for want of memory or by a person",
    }
    jobs = [("return", "first")]
    for what in ends:
        jobs += [(what, None), ("return", f"after {what}"), ("return", {"what": what})]
    found = results(jobs, gib=1.0)
    assert found[0] == "first"
    for index, (what, reason) in enumerate(ends.items()):
        failure, *others = found[3 * index + 1 : 3 * index + 4]
        assert others == [f"after {what}", {"what": what}]
        assert isinstance(failure, Failure) and reason in failure.reason


def test_a_hang_is_no_sign_of_life_for_a_while():
    jobs = [("hang", 0), ("work for long", 1), ("write for long", 2), ("return", 3)]
    start = time.monotonic()
    failure, *others = results(jobs, patience_seconds=1.0)
    assert failure == Failure("decoding hangs: nothing came for 1 s")
    assert others == [1, 2, 3]
    assert time.monotonic() - start < 20


def test_one_killed_by_others_gets_a_second_chance(tmp_path):
    jobs = [("be killed once", str(tmp_path / str(i))) for i in range(3)]
    assert results(jobs) == [job[1] for job in jobs]


def test_workers_that_die_at_once_break_no_order():
    jobs = [("crash", None) if i % 2 else ("return", i) for i in range(24)]
    found = results(jobs)
    assert [isinstance(result, Failure) for result in found] == [i % 2 == 1 for i in range(24)]
    assert found[::2] == list(range(0, 24, 2))


def test_work_that_cannot_go_on_blames_no_file():
    with pytest.raises(WorkError, match="the disk is full"):
        results([("return", 1), ("give up", None), ("return", 2)])
    assert multiprocessing.active_children() == []
    with pytest.raises(ValueError, match="num_workers is 0"):
        results([("return", 1)], num_workers=0)


def test_a_script_without_a_guard_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from mmdisco_jax.media.isolation import isolated_map\n"
        "print(list(isolated_map(len, [('four',)], num_workers=1)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "WorkError: worker processes cannot start (" in done.stderr
    assert "begin under `if __name__ == '__main__':`" in done.stderr


def test_jobs_are_read_as_they_are_needed_and_workers_end_with_the_loop():
    taken = []

    def jobs():
        for index in range(1000):
            taken.append(index)
            yield ("return", index)

    for index, result in isolated_map(do, jobs(), num_workers=1):
        assert index == result
        if index == 2:
            break
    assert len(taken) < 10
    assert multiprocessing.active_children() == []
    assert results([]) == []


def test_a_worker_ends_soon_after_its_parent_was_killed(tmp_path):
    note = tmp_path / "pid"
    parent = subprocess.Popen(
        [sys.executable, "-m", "tests.support.isolation_jobs", note],
        cwd=ROOT,
    )
    try:
        wait_until(note.exists)
        wait_until(lambda: note.read_text())
        worker = int(note.read_text())
        os.kill(worker, 0)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait_until(lambda: not Path(f"/proc/{worker}").exists() or is_zombie(worker))


def is_zombie(pid: int) -> bool:
    """Dead, but nobody has asked for its exit status: containers may have no one who does."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")


def wait_until(true, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)
