# SPDX-License-Identifier: Apache-2.0
"""Inputs of a dataset, from a folder, a list or a table, and the split of each."""

import os
import re
from pathlib import Path

import pytest

from mmdisco_jax.media.entries import (
    Entry,
    assign_splits,
    fill_empty_splits,
    read_csv,
    read_list,
    scan,
)

SHARES = {"test": 0.2, "train": 0.8}


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def named(*names: str, split: str = "") -> list[Entry]:
    return [Entry(name=name, path=Path(name), group=name, split=split) for name in names]


def test_a_folder_gives_all_that_has_the_name_of_a_media_file(tmp_path):
    touch(tmp_path, "b.MP4", "a/z.mkv", "a.gif", "a.wav", "a/c.txt", "clips.ts/d.webm")
    os.mkfifo(tmp_path / "pipe.avi")
    (tmp_path / "dangling.mov").symlink_to("nowhere")
    with open(os.fsencode(tmp_path) + b"/\xff.mp4", "wb"):
        pass
    entries = scan(tmp_path)
    names = ["\\xff.mp4", "a.gif", "a/z.mkv", "b.MP4", "clips.ts/d.webm", "dangling.mov"]
    assert [entry.name for entry in entries] == [*names, "pipe.avi"]
    assert all(os.path.lexists(entry.path) and entry.path.is_absolute() for entry in entries)
    sounds = {entry.name: entry.sound_path for entry in entries if entry.sound_path}
    assert sounds == {"a.gif": tmp_path / "a.wav"}


def test_a_list_gives_its_files_in_its_order(tmp_path):
    folder = touch(tmp_path / "m", "a.mp4", "b.mp4")
    names = tmp_path / "list.txt"
    names.write_bytes("\ufeff# comment\r\nb.mp4\r\n\n  gone.mp4\na\u2028.mp4\n/x/c.mp4".encode())
    entries = read_list(names, folder)
    assert [entry.name for entry in entries] == ["b.mp4", "gone.mp4", "a\u2028.mp4", "/x/c.mp4"]
    assert entries[0].path == folder / "b.mp4"
    assert entries[3].path == Path("/x/c.mp4")
    names.write_text("a.mp4\nb.mp4\na.mp4\n")
    with pytest.raises(ValueError, match=r"list\.txt names 'a\.mp4' more than once"):
        read_list(names, folder)
    names.write_text("# nothing\n\n")
    with pytest.raises(ValueError, match=r"list\.txt names no file; write one a line"):
        read_list(names, folder)
    names.write_bytes("né.mp4".encode("latin-1"))
    with pytest.raises(ValueError, match=r"list\.txt is not UTF-8 text.*save it as such"):
        read_list(names, folder)
    with pytest.raises(FileNotFoundError, match=r"no file .*none\.txt"):
        read_list(tmp_path / "none.txt", folder)


def test_names_are_never_addresses_to_the_decoder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text("http://example.org/a.mp4\n")
    (entry,) = read_list("list.txt", ".")
    assert str(entry.path) == f"{tmp_path}/http:/example.org/a.mp4"


def test_a_table_gives_captions_parts_and_splits(tmp_path):
    table = tmp_path / "t.csv"
    rows = [
        "file,caption,start_seconds,split",
        'a.mp4,"rain, then\nthunder",,',
        "",
        "a.mp4,a\u2028dog,3.5,train",
        "a.mp4,two texts of one clip,3.5,train",
        "b.mp4,,0,my_split",
    ]
    table.write_text("\n".join(rows))
    whole, part, again, first = read_csv(table, tmp_path)
    assert (whole.caption, whole.start_seconds, whole.max_clips, whole.split) == (
        ("rain, then\nthunder", 0.0, None, "")
    )
    assert (part.caption, part.start_seconds, part.max_clips, part.split) == (
        ("a\u2028dog", 3.5, 1, "train")
    )
    assert (again.caption, again.path) == ("two texts of one clip", part.path)
    assert (first.start_seconds, first.max_clips, first.split) == (0.0, 1, "my_split")
    table.write_text("caption,file\nx,a.mp4\n")
    assert read_csv(table, tmp_path)[0].caption == "x"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs a header with 'file'"),
        ("file\n", "needs a header with 'file' and at least one row"),
        ("name\na.mp4\n", "needs a header with 'file'"),
        ("file,length\na.mp4,3\n", "has the column 'length'"),
        ("file,file\na.mp4,b.mp4\n", "has the column 'file'; it may have each"),
        ("file,caption\na.mp4,x\n,x\n", "line 3: 'file' is empty"),
        ("file,caption\n\na.mp4,rain, thunder\n", "line 3: has 3 cells, but the header has 2"),
        ("file,caption\na.mp4\n", "line 2: has 1 cells, but the header has 2"),
        ("file,start_seconds\na.mp4,1\na.mp4,-1\n", "line 3: start_seconds is '-1'"),
        ("file,start_seconds\na.mp4,nan\n", "line 2: start_seconds is 'nan'"),
        ("file,start_seconds\na.mp4,1:30\n", "line 2: start_seconds is '1:30'"),
        ("file,split\na.mp4,all\n", "line 2: split is 'all'"),
        ("file,split\na.mp4,train[:10%]\n", "line 2: split is 'train[:10%]', but must be a word"),
        ("file\na.mp4\nb.mp4\na.mp4\n", "line 4: is the same as line 2"),
        ('file,caption\na.mp4,"open\n', "line 2: is no CSV (unexpected end of data)"),
    ],
)
def test_a_wrong_table_is_told_by_its_row(tmp_path, text, message):
    table = tmp_path / "t.csv"
    table.write_text(text)
    with pytest.raises(ValueError, match=r"t\.csv.*" + re.escape(message)):
        read_csv(table, tmp_path)


def test_a_split_depends_on_the_seed_and_the_name_alone():
    names = [f"{i:03d}.mp4" for i in range(2000)]
    splits = {e.name: e.split for e in assign_splits(named(*names), SHARES, seed=0)}
    assert abs(list(splits.values()).count("test") - 400) < 4 * (2000 * 0.2 * 0.8) ** 0.5
    other = {e.name: e.split for e in assign_splits(named(*names), SHARES, seed=1)}
    assert 400 < sum(splits[name] != other[name] for name in names) < 900
    # Neither other files nor the order matter.
    few = assign_splits(named("new.mp4", *reversed(names[::7])), SHARES, seed=0)
    assert all(splits[entry.name] == entry.split for entry in few[1:])
    # A larger share takes more files, and gives none back.
    wide = {
        e.name: e.split for e in assign_splits(named(*names), {"test": 0.4, "train": 0.6}, seed=0)
    }
    assert all(wide[name] == "test" for name in names if splits[name] == "test")
    given = assign_splits(named("x", split="validation"), SHARES, seed=0)
    assert given[0].split == "validation"
    together = [Entry(name=name, path=Path(name), group="one") for name in names[:50]]
    assert len({entry.split for entry in assign_splits(together, SHARES, seed=0)}) == 1
    for shares, split in (
        ({"test": 0.0, "train": 1.0}, "train"),
        ({"test": 1.0, "train": 0.0}, "test"),
    ):
        assert {e.split for e in assign_splits(named(*names), shares, seed=0)} == {split}
    with pytest.raises(ValueError, match="must add up to 1"):
        assign_splits(named("x"), {"test": 0.7, "eval": 0.7, "train": 0.0}, seed=0)


def test_a_split_that_chance_left_empty_gets_the_smallest_group():
    entries = named("a", "b", "c", split="train")
    filled = fill_empty_splits(entries, [5, 2, 3], SHARES)
    assert [entry.split for entry in filled] == ["train", "test", "train"]
    assert fill_empty_splits(entries, [5, 2, 3], {"test": 0.0, "train": 1.0}) == entries
    alone = named("a", split="train")
    assert fill_empty_splits(alone, [5], SHARES) == alone
    full = [*named("a", split="train"), *named("b", split="test")]
    assert fill_empty_splits(full, [5, 2], SHARES) == full
    three = {"test": 0.1, "eval": 0.1, "train": 0.8}
    splits = [entry.split for entry in fill_empty_splits(entries, [5, 2, 3], three)]
    assert splits == ["train", "test", "eval"]
    grouped = [
        Entry(name=str(i), path=Path(str(i)), group=str(i // 2), split="train") for i in range(6)
    ]
    moved = fill_empty_splits(grouped, [1, 1, 3, 3, 2, 2], SHARES)
    assert [entry.split for entry in moved] == ["test", "test", *["train"] * 4]
