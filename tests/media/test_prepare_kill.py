# SPDX-License-Identifier: Apache-2.0
"""`prepare` killed at any moment goes on to the same bytes, and leaves nothing behind."""

import contextlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.media_seeds import write_seed
from tests.support.prepare_process import finish, start

CLIP = {"clip_seconds": 0.2, "fps": 10, "height": 32, "width": 32, "sample_rate_hz": 16_000}
OPTIONS = {**CLIP, "test_fraction": 0.4, "on_corrupt": "keep"}
FILES = ("a.mp4", "b.webm", "c.mkv", "e.gif")


class Runs:
    """Prepares one folder of media, into as many places as are wanted."""

    def __init__(self, base: Path):
        self._media = base / "media"
        self._media.mkdir()
        for index, name in enumerate(FILES):
            write_seed(self._media / name, seed=index)
        torn = self._media / "torn.mp4"
        torn.write_bytes(write_seed(base / "seed.mp4").read_bytes()[:-4000])
        self.changes: list[str] = self.finish(base / "whole")["changes"]
        self.wanted = contents(base / "whole")

    def start(self, data_dir: Path, **more) -> subprocess.Popen:
        return start({"folder": str(self._media), "data_dir": str(data_dir), **OPTIONS, **more})

    def finish(self, data_dir: Path, **more) -> dict:
        return finish(self.start(data_dir, **more))

    def check_same(self, data_dir: Path) -> None:
        """All files, and nothing else: no pieces, no incomplete folder, no temporary file."""
        found = contents(data_dir)
        assert sorted(found) == sorted(self.wanted)
        assert [name for name, data in found.items() if data != self.wanted[name]] == []


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    made = Runs(tmp_path_factory.mktemp("kill"))
    names = {Path(name).name for name in made.wanted}
    assert {"dataset_info.json", "features.json", "preflight.json", "quarantine.json"} <= names
    assert {name.partition(".")[0] for name in names if "array_record" in name} == {
        "folder-train",
        "folder-test",
    }
    return made


def progress(data_dir: Path) -> int:
    """Lines and files that a run has written so far, and that are not yet records."""
    count = 0
    for place, _, names in os.walk(data_dir / "folder"):
        if "pieces." in place or "incomplete." in place:
            count += len(names)
            with contextlib.suppress(FileNotFoundError):
                count += (Path(place) / "inspections.jsonl").read_bytes().count(b"\n")
    return count


def kill_and_resume(runs: Runs, base: Path, kills: int, seed: int, **more) -> int:
    """Resumes and kills, begins anew once it is done; returns how many were killed in between."""
    rng = random.Random(seed)
    data_dir, killed = base / "0", 0
    for number in range(kills):
        wanted = progress(data_dir) + rng.randrange(7)
        process = runs.start(data_dir, **more)
        while process.poll() is None and progress(data_dir) < wanted:
            time.sleep(0.003)
        time.sleep(rng.choice([0.0, rng.uniform(0, 0.3)]))
        if number % 2:
            process.kill()  # the workers live on, for a while
        else:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        if process.returncode == 0:
            runs.check_same(data_dir)
            data_dir = base / str(number + 1)
    runs.finish(data_dir)
    runs.check_same(data_dir)
    return killed


def test_killed_at_random_moments_it_goes_on_to_the_same_bytes(runs, tmp_path):
    assert kill_and_resume(runs, tmp_path, kills=4, seed=0) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_killed_twenty_times_it_goes_on_to_the_same_bytes(runs, tmp_path, seed):
    assert kill_and_resume(runs, tmp_path, kills=20, seed=seed, num_workers=2) >= 10


def dies_at(runs: Runs, data_dir: Path, change: int) -> None:
    process = runs.start(data_dir, die_at=change)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    runs.finish(data_dir)
    runs.check_same(data_dir)


def test_killed_as_it_finishes_it_leaves_nothing(runs, tmp_path):
    """Before the records get their name, and while the pieces are removed."""
    kinds = [change.partition(" ")[0] for change in runs.changes]
    dies_at(runs, tmp_path / "records", kinds.index("os.rename") + 1)
    assert runs.changes[-1].startswith("os.rmdir")
    dies_at(runs, tmp_path / "pieces", len(kinds) - 2)


@pytest.mark.slow
def test_killed_before_any_change_of_a_folder_it_goes_on_to_the_same_bytes(runs, tmp_path):
    for change in range(1, len(runs.changes) + 1):
        dies_at(runs, tmp_path / str(change), change)


def test_of_two_at_once_the_second_finds_the_work_done(runs, tmp_path):
    first, second = runs.start(tmp_path, num_workers=2), runs.start(tmp_path)
    summaries = [finish(process)["summary"] for process in (first, second)]
    assert sorted(summary["already_prepared"] for summary in summaries) == [False, True]
    for summary in summaries:
        summary.pop("already_prepared")
    assert summaries[0] == summaries[1]
    runs.check_same(tmp_path)


@pytest.mark.slow
def test_two_at_once_that_share_pieces_both_end(runs, tmp_path):
    first, second = runs.start(tmp_path), runs.start(tmp_path, on_corrupt="skip")
    summaries = [finish(process)["summary"] for process in (first, second)]
    assert [summary["already_prepared"] for summary in summaries] == [False, False]
    assert summaries[0]["directory"] != summaries[1]["directory"]
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == sorted(
        Path(summary["directory"]).parent.name for summary in summaries
    )
