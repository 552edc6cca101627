# SPDX-License-Identifier: Apache-2.0
"""TFDS builder of `vggsound`: the clips of its table, with the labels as captions."""

import csv
import dataclasses
from pathlib import Path

from mmdisco_jax.media.builder import MediaBuilder, MediaOptions
from mmdisco_jax.media.entries import Entry, scan

_CLIP_SECONDS = 10
_COLUMNS = 4  # YouTube id, start in seconds, label, split; no header


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(MediaOptions):
    """Options of `MediaOptions`, and the table of clips.

    Attributes:
      folder: root of the files, at any depth: clips of 10 s named ID_START (seconds, six digits) or
        ID_START_END (milliseconds), or whole videos named ID, from which the clips are cut.
      table: the released vggsound.csv (YouTube id, start in seconds, label, split).
      on_missing_file: "skip" by default, because many videos have been removed from the web.
    """

    table: str
    on_missing_file: str = "skip"

    def entries(self) -> list[Entry]:
        files: dict[str, Entry] = {}
        for entry in scan(self.folder):
            files.setdefault(entry.path.stem, entry)
        table = Path(self.table).expanduser()
        if not table.is_file():
            raise FileNotFoundError(f"no file {table}; pass the vggsound.csv of the release.")
        rows = list(csv.reader(table.read_text(encoding="utf-8-sig").splitlines()))
        return [self._entry(row, n, files) for n, row in enumerate(rows, 1)]

    def _entry(self, row: list[str], number: int, files: dict[str, Entry]) -> Entry:
        if len(row) != _COLUMNS or not row[1].strip().isdigit() or row[3] not in ("train", "test"):
            raise ValueError(
                f"{self.table}, row {number} is {row}, but must be a YouTube id, a start in whole "
                "seconds, a label, and train or test."
            )
        video, start, label, split = row[0], int(row[1]), row[2], row[3]
        clips = int(_CLIP_SECONDS / self.clip_seconds + 1e-6) or 1
        common = {"caption": label, "split": split, "group": video, "max_clips": clips}
        milliseconds = f"{1000 * start}_{1000 * (start + _CLIP_SECONDS)}"
        for name in (f"{video}_{start:06d}", f"{video}_{milliseconds}"):
            if name in files:
                return dataclasses.replace(files[name], **common)
        if video in files:
            return dataclasses.replace(files[video], start_seconds=float(start), **common)
        name = f"{video}_{start:06d}.mp4"
        return Entry(name=name, path=Path(self.folder).expanduser() / name, **common)


class Builder(MediaBuilder):
    """TFDS builder of `vggsound`; see README.md."""

    OPTIONS = Options
