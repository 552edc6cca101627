# SPDX-License-Identifier: Apache-2.0
"""Progress of long work: lines in a log file, a bar on a terminal, and no second kind of either."""

import ast
import io
import sys
from pathlib import Path

import pytest

from mmdisco_jax import progress
from mmdisco_jax.progress import Progress

ROOT = Path(__file__).resolve().parents[1]


class Clock:
    """A clock that moves by the seconds it is told."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def test_a_log_gets_a_line_every_half_minute_and_one_at_the_end(clock, capsys):
    with Progress(total=100, what="guided") as bar:
        for _ in range(100):
            clock.now += 1
            bar.note(loss="0.4")
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "guided: 30 of 100 steps, 30 %, 00:30 so far, 01:10 to go, loss 0.4",
        "guided: 60 of 100 steps, 60 %, 01:00 so far, 00:40 to go, loss 0.4",
        "guided: 90 of 100 steps, 90 %, 01:30 so far, 00:10 to go, loss 0.4",
        "guided: 100 of 100 steps, 100 %, 01:40 so far, loss 0.4",
    ]


def test_what_was_done_before_counts_for_the_share_and_not_for_the_speed(clock, capsys):
    bar = Progress(total=200, initial=100, what="train")
    clock.now += 50
    bar.update(50)
    assert capsys.readouterr().err == "train: 150 of 200 steps, 75 %, 00:50 so far, 00:50 to go\n"


def test_items_are_counted_and_an_unknown_total_is_no_share(clock, capsys):
    assert list(Progress([1, 2], unit="file", what="cut")) == [1, 2]
    assert list(Progress(iter("ab"), unit="file")) == ["a", "b"]
    assert capsys.readouterr().err.splitlines() == [
        "cut: 2 of 2 files, 100 %, 00:00 so far",
        "2 files, 00:00 so far",
    ]


def test_nothing_is_told_where_nothing_was_done_or_another_process_tells(clock, capsys):
    list(Progress([]))
    list(Progress([1, 2], leave=False))
    for _ in Progress([1, 2], hidden=True):
        clock.now += 60
    assert capsys.readouterr().err == ""


def test_the_last_line_is_there_after_an_error(clock, capsys):
    with pytest.raises(ValueError, match="no"), Progress(total=5, what="cut", unit="file") as bar:
        bar.update(2)
        raise ValueError("no")
    assert capsys.readouterr().err == "cut: 2 of 5 files, 40 %, 00:00 so far, 00:00 to go\n"


def test_a_log_on_a_full_disk_neither_stops_the_work_nor_hides_its_error(monkeypatch):
    full = io.StringIO()
    monkeypatch.setattr(full, "write", lambda text: (_ for _ in ()).throw(OSError(28, "full")))
    monkeypatch.setattr(sys, "stderr", full)
    with pytest.raises(ValueError, match="diverged"), Progress(total=2) as bar:
        bar.update()
        raise ValueError("diverged")


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for _ in Progress(range(3), what="guided"):
        pass
    told = capsys.readouterr().err
    assert "\rguided: 100%" in told and "so far" not in told


def test_all_bars_are_these():
    users = [
        str(path.relative_to(ROOT))
        for folder in ("mmdisco_jax", "data", "configs")
        for path in ROOT.glob(f"{folder}/**/*.py")
        if "tqdm" in {n.split(".")[0] for n in _modules(path)}
    ]
    assert users == ["mmdisco_jax/progress.py"]


def _modules(path: Path) -> list[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = [a.name for n in nodes if isinstance(n, ast.Import) for a in n.names]
    return plain + [n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)]
