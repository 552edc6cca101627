# SPDX-License-Identifier: Apache-2.0
"""Intermediate files are whole or absent, and a full disk blames no file."""

import json
import os
import threading
import time
from pathlib import Path

import pytest

from mmdisco_jax.media import pieces, preflight, work_folder
from mmdisco_jax.media.cutting import ClipSpec, Part
from mmdisco_jax.media.entries import scan
from mmdisco_jax.media.isolation import WorkError, isolated_map
from mmdisco_jax.media.pieces import cut, read_finished_piece, read_piece, write_failed_piece
from mmdisco_jax.media.policies import Policies
from mmdisco_jax.media.preflight import cut_all, inspect_all
from tests.support.media_seeds import write_seed

SPEC = ClipSpec(clip_seconds=0.5, fps=10, height=16, width=16, sample_rate_hz=16_000)


def nothing() -> None:
    pass


def cut_seed(folder: Path) -> pieces.Piece:
    media = write_seed(folder / "a.mkv")
    return cut(str(media), None, SPEC, Part(), str(folder / "piece"), nothing)


def test_a_piece_comes_back(tmp_path):
    made = cut_seed(tmp_path)
    assert (made.num_clips, made.problem) == (2, "")
    assert read_finished_piece(made.path) == made
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mkv", "piece", "piece.json"]
    windows = list(read_piece(made, SPEC, 0, 2))
    assert [window.start_seconds for window in windows] == [0.0, 0.5]
    died = write_failed_piece(str(tmp_path / "none"), "why")
    assert (read_finished_piece(died.path), died.reason) == (died, "why")
    assert read_finished_piece(str(tmp_path / "other")) is None


def test_torn_notes_and_pieces_are_none(tmp_path):
    made = cut_seed(tmp_path)
    note, piece = Path(f"{made.path}.json"), Path(made.path)
    text, data = note.read_text(), piece.read_bytes()
    assert len(data) > 1 << 16
    for torn in ("", text[:-1], text[: len(text) // 2], "\0" * len(text), "[]", '{"clips": 2}'):
        note.write_text(torn)
        assert read_finished_piece(made.path) is None
    note.write_text(text)
    for end in (0, 100, 1 << 16, len(data) // 2, len(data) - 1):
        piece.write_bytes(data[:end])
        assert read_finished_piece(made.path) is None
    piece.unlink()
    assert read_finished_piece(made.path) is None
    piece.write_bytes(data)
    assert read_finished_piece(made.path) == made


def test_a_piece_is_on_the_disk_before_its_note(tmp_path, monkeypatch):
    steps = []
    replace, sync = os.replace, os.fsync

    def noted_replace(old, new):
        steps.append(f"rename to {Path(new).name}")
        replace(old, new)

    def noted_sync(handle):
        name = Path(os.readlink(f"/proc/self/fd/{handle}")).name
        steps.append(f"sync {name.replace(str(os.getpid()), 'N').replace(tmp_path.name, 'folder')}")
        sync(handle)

    monkeypatch.setattr(os, "replace", noted_replace)
    monkeypatch.setattr(os, "fsync", noted_sync)
    cut_seed(tmp_path)
    assert steps == [
        "sync piece.N.part",
        "rename to piece",
        "sync folder",
        "sync piece.json.N.part",
        "rename to piece.json",
        "sync folder",
    ]


def test_a_full_disk_is_no_fault_of_the_file(tmp_path):
    (tmp_path / f"piece.{os.getpid()}.part").symlink_to("/dev/full")
    with pytest.raises(WorkError, match=r"cannot write .*piece: .*No space left.*run again"):
        cut_seed(tmp_path)
    with pytest.raises(OSError, match=r"cannot write .*missing.*No such file"):
        cut_all(scan(tmp_path), SPEC, Policies(), tmp_path / "missing", num_workers=1)


def test_what_is_no_file_is_refused_when_it_is_cut_as_well(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    made = cut(str(tmp_path / "pipe.mp4"), None, SPEC, Part(), str(tmp_path / "piece"), nothing)
    assert (made.num_clips, made.problem) == (0, "corrupt")
    assert "is missing, or not a file" in made.reason


def test_a_torn_log_of_inspections_goes_on_after_its_whole_lines(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    for name in "abc":
        (tmp_path / "m").mkdir(exist_ok=True)
        write_seed(tmp_path / "m" / f"{name}.mkv", seed=ord(name))
    entries, log = scan(tmp_path / "m"), tmp_path / "work" / "inspections.jsonl"
    jobs = []

    def noted_map(function, todo, **options):
        jobs.append(len(todo))
        return isolated_map(function, todo, **options)

    monkeypatch.setattr(preflight, "isolated_map", noted_map)
    wanted = inspect_all(entries, SPEC, tmp_path / "work", num_workers=1)
    whole = log.read_bytes()
    lines = whole.splitlines(keepends=True)
    torn = [
        whole[:-1],
        whole[:-40],
        whole[: -len(lines[-1]) // 2],
        b"".join(lines[:2]) + b"\0" * 100 + b"\n",
        b"".join(lines[:2]) + b'["a", null, {"unknown": 1}]\n',
    ]
    for data in torn:
        log.write_bytes(data)
        assert inspect_all(entries, SPEC, tmp_path / "work", num_workers=1) == wanted
        assert log.read_bytes() == whole
    assert jobs == [3, 1, 1, 1, 1, 1]
    assert [json.loads(line)[0] for line in lines] == [str(entry.path) for entry in entries]


def test_a_lock_is_waited_for_and_the_folder_made_anew_if_it_went(tmp_path):
    folder, order = tmp_path / "pieces.x", []

    def second() -> None:
        with work_folder.locked(folder):
            order.append(f"second, {sorted(path.name for path in folder.iterdir())}")

    with work_folder.locked(folder):
        (folder / "half").touch()
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        order.append("first")
        work_folder.discard(folder)
        assert not folder.exists()
    thread.join(10)
    assert order == ["first", "second, ['.lock']"]
    assert [path.name for path in tmp_path.iterdir()] == ["pieces.x"]


def test_only_the_last_user_discards_what_a_finished_run_left(tmp_path):
    folder = tmp_path / "pieces.x"
    with work_folder.locked(folder):
        work_folder.claim(folder, "one")
        work_folder.claim(folder, "two")
    (tmp_path / "pieces.x.old.1").mkdir()  # killed while it was removed
    work_folder.discard_if_last(folder, "one")
    assert [path.name for path in tmp_path.iterdir()] == ["pieces.x"]
    (folder / "user.two").unlink()
    work_folder.discard_if_last(folder, "one")
    assert list(tmp_path.iterdir()) == []
    work_folder.discard_if_last(folder, "one")
