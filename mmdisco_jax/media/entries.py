# SPDX-License-Identifier: Apache-2.0
"""Listing of a dataset's input files, from a folder, a list or a CSV table, and their splits."""

import csv
import dataclasses
import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from mmdisco_jax.media.cutting import Part

MEDIA_SUFFIXES = (
    ".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg",
    ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv",
)  # fmt: skip
# A GIF has no sound; a sound file of the same name beside it is used.
SOUND_SUFFIXES = (".wav", ".flac", ".m4a", ".mp3", ".ogg", ".opus")
SILENT_SUFFIXES = (".gif",)
SPLITS = ("train", "eval", "test")
CSV_COLUMNS = ("file", "caption", "start_seconds", "split")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One input: a media file, or a part of one.

    Attributes:
      name: path relative to the dataset's folder, with forward slashes.
      path: path to open.
      sound_path: another file that holds the sound, or None.
      start_seconds: beginning of the part, counted from the file's beginning.
      max_clips: upper limit on the number of clips; None for no limit.
      caption: a text, or "".
      split: the dataset's own split, or "" to let `assign_splits` choose.
      group: entries of one group share a split; by default the file's name.
    """

    name: str
    path: Path
    sound_path: Path | None = None
    start_seconds: float = 0.0
    max_clips: int | None = None
    caption: str = ""
    split: str = ""
    group: str = ""

    def part(self, **substitutes: bool) -> Part:
        """The part of the file to cut, with substitutes as in `Part` (silence, black, hold)."""
        return Part(start_seconds=self.start_seconds, max_clips=self.max_clips, **substitutes)


def scan(folder: str | Path) -> list[Entry]:
    """Lists the media files under `folder`, recursively, sorted by relative name.

    Everything with the suffix of a media file counts unless it is a folder, so that unreadable
    files are reported later instead of being overlooked. Links to folders are not followed.

    Raises:
      FileNotFoundError: no such folder, or no media files under it.
      OSError: a folder under it cannot be read.
    """
    root = _existing(folder)
    files = [
        Path(place, name)
        for place, _, names in os.walk(root, onerror=_raise)
        for name in names
        if Path(name).suffix.lower() in MEDIA_SUFFIXES
    ]
    if not files:
        raise FileNotFoundError(
            f"no media files under {root} (looked for {', '.join(MEDIA_SUFFIXES)}); pass another "
            "folder or convert the files."
        )
    return sorted(
        (_entry(path.relative_to(root).as_posix(), path) for path in files),
        key=lambda entry: entry.name,
    )


def read_list(path: str | Path, folder: str | Path) -> list[Entry]:
    """Reads a text file that names one media file a line; keeps the order.

    Names are absolute or relative to `folder`. Empty lines and lines that begin with # are ignored.
    A named file that is missing becomes an entry too, because the inspection reports it.

    Raises:
      FileNotFoundError: no such list or folder.
      ValueError: the list names no file, or a file twice.
    """
    root, lines = _existing(folder), _read_text(path).split("\n")
    names = [line.strip() for line in lines]
    names = [name for name in names if name and not name.startswith("#")]
    if not names:
        raise ValueError(f"{path} names no file; write one a line, relative to {root}.")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{path} names {twice[0]!r} more than once; leave the others out.")
    return [_entry(name, root / name) for name in names]


def read_csv(path: str | Path, folder: str | Path) -> list[Entry]:
    """Reads a CSV table of media files with a header.

    The column `file` is required and relative to `folder`; `caption`, `start_seconds` and `split`
    are optional. A row with `start_seconds` gives one clip that begins there; a row without it
    gives all the clips of its file.

    Raises:
      FileNotFoundError: no such table or folder.
      ValueError: a bad header or value, or two equal rows; names the line.
    """
    root = _existing(folder)
    (_, header), *rows = _table(path) or [(0, [])]
    if not rows or "file" not in header:
        raise ValueError(f"{path} needs a header with 'file' and at least one row.")
    if unknown := sorted({n for n in header if n not in CSV_COLUMNS or header.count(n) > 1}):
        raise ValueError(
            f"{path} has the column {unknown[0]!r}; it may have each of {CSV_COLUMNS} once."
        )
    entries: dict[Entry, int] = {}
    for line, cells in rows:
        entry = _row(root, header, cells, f"{path}, line {line}")
        if (other := entries.setdefault(entry, line)) != line:
            raise ValueError(f"{path}, line {line}: is the same as line {other}; leave one out.")
    return list(entries)


def split_by_folder(entries: Iterable[Entry], splits: Sequence[str] = SPLITS) -> list[Entry]:
    """Gives each entry that lies in a folder named like a split that split; others stay."""
    done = []
    for entry in entries:
        named = [part for part in entry.name.lower().split("/")[:-1] if part in splits]
        done.append(dataclasses.replace(entry, split=named[0]) if named else entry)
    return done


def assign_splits(
    entries: Iterable[Entry], fractions: Mapping[str, float], *, seed: int
) -> list[Entry]:
    """Gives each entry without a split one by a hash of (seed, group).

    A group's split depends on nothing else, so adding or losing files moves no other file.

    Args:
      fractions: split -> share of the groups. The last split gets the rest.

    Raises:
      ValueError: a share is negative, or the shares add up to more than 1.
    """
    names, shares = list(fractions), list(fractions.values())
    if min(shares) < 0 or sum(shares) > 1 + 1e-9:
        raise ValueError(f"the splits' fractions are {dict(fractions)}, but must add up to 1.")
    return [
        entry
        if entry.split
        else dataclasses.replace(entry, split=_split_of(entry.group, names, shares, seed))
        for entry in entries
    ]


def fill_empty_splits(
    entries: Sequence[Entry], clips: Sequence[int], fractions: Mapping[str, float]
) -> list[Entry]:
    """Moves groups into splits that chance left empty, as far as there are enough groups.

    In a small folder the hash may leave a split empty. Such a split gets the group with the fewest
    clips, taken from a split that has several groups. Pass usable entries only, so that a bad file
    cannot influence the choice.

    Args:
      clips: number of clips of each entry.
      fractions: split -> share, as for `assign_splits`; splits with share 0 stay empty.
    """
    entries = list(entries)
    size: dict[str, int] = {}
    for entry, count in zip(entries, clips, strict=True):
        size[entry.group] = size.get(entry.group, 0) + count
    for wanted in [name for name, share in fractions.items() if share > 0]:
        groups: dict[str, set[str]] = {}
        for entry in entries:
            groups.setdefault(entry.split, set()).add(entry.group)
        spare = [group for members in groups.values() if len(members) > 1 for group in members]
        if wanted in groups or not spare:
            continue
        moved = min(spare, key=lambda group: (size[group], group))
        entries = [
            dataclasses.replace(entry, split=wanted) if entry.group == moved else entry
            for entry in entries
        ]
    return entries


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _split_of(group: str, names: list[str], shares: list[float], seed: int) -> str:
    place = _hash(f"{seed}:{group}") / 2**64
    for name, share in zip(names[:-1], shares[:-1], strict=True):
        if place < share:
            return name
        place -= share
    return names[-1]


def _existing(folder: str | Path) -> Path:
    # Absolute, so that the decoder cannot take a name such as "http:" for an address.
    root = Path(folder).expanduser().absolute()
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}; pass the folder that holds the media files.")
    return root


def _read_text(path: str | Path) -> str:
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}; pass the list or table of the media files.")
    try:
        return file.read_text(encoding="utf-8-sig")  # spreadsheets write a byte order mark
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text: {error}; save it as such.") from error


def _table(path: str | Path) -> list[tuple[int, list[str]]]:
    """(number of its last line, cells) of each row that is not empty."""
    rows = []
    reader = csv.reader(io.StringIO(_read_text(path), newline=""), strict=True)
    try:
        for cells in reader:
            rows.append((reader.line_num, cells))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: is no CSV ({error}).") from error
    return [(line, cells) for line, cells in rows if cells]


def _raise(error: OSError) -> NoReturn:
    raise error


def _shown(name: str) -> str:
    """The name as valid text: bytes that are not UTF-8 become \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _entry(name: str, path: Path) -> Entry:
    sound = None
    if path.suffix.lower() in SILENT_SUFFIXES:
        beside = [path.with_suffix(suffix) for suffix in SOUND_SUFFIXES]
        sound = next((file for file in beside if file.is_file()), None)
    name = _shown(name)
    return Entry(name=name, path=path, sound_path=sound, group=name)


def _row(root: Path, header: list[str], cells: list[str], where: str) -> Entry:
    if len(cells) != len(header):
        raise ValueError(
            f"{where}: has {len(cells)} cells, but the header has {len(header)}; put a text that "
            "has a comma in quotes."
        )
    row = dict(zip(header, cells, strict=True))
    name, split = row["file"].strip(), row.get("split", "").strip()
    if not name:
        raise ValueError(f"{where}: 'file' is empty; name a file relative to {root}.")
    if split and (not re.fullmatch(r"[A-Za-z]\w*", split, re.ASCII) or split == "all"):
        raise ValueError(f"{where}: split is {split!r}, but must be a word, such as train or test.")
    entry = _entry(name, root / name)
    entry = dataclasses.replace(entry, caption=row.get("caption", ""), split=split)
    if not (start := row.get("start_seconds", "").strip()):
        return entry
    try:
        seconds = float(start)
        Part(start_seconds=seconds)
    except ValueError as error:
        raise ValueError(
            f"{where}: start_seconds is {start!r}, but must be a number of seconds >= 0."
        ) from error
    return dataclasses.replace(entry, start_seconds=seconds, max_clips=1)
