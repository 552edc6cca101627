# SPDX-License-Identifier: Apache-2.0
"""TFDS builder of `folder`: clips of the media files of a folder, of a list or of a table."""

import dataclasses

from mmdisco_jax.media.builder import MediaBuilder, MediaOptions
from mmdisco_jax.media.entries import Entry, read_csv, read_list, scan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(MediaOptions):
    """Those of `MediaOptions`, and which files of the folder.

    By default all media files, searched recursively. `files` is a text file with one name a line,
    `table` a CSV with the columns file, caption, start_seconds and split (all but the first may
    lack); names are relative to `folder`. `test_fraction` of the files, in [0, 1], go to `test`;
    which ones depends on `seed` and their own names alone.
    """

    files: str = ""
    table: str = ""
    test_fraction: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.test_fraction <= 1.0:
            raise ValueError(
                f"folder: test_fraction is {self.test_fraction}, but must be in [0, 1]; 0.1 keeps "
                "a tenth of the files for testing."
            )
        if self.files and self.table:
            raise ValueError("folder: give `files` or `table`, not both.")

    def entries(self) -> list[Entry]:
        if self.table:
            return read_csv(self.table, self.folder)
        return read_list(self.files, self.folder) if self.files else scan(self.folder)

    def shares(self) -> dict[str, float]:
        return {"test": self.test_fraction, "train": 1 - self.test_fraction}


class Builder(MediaBuilder):
    """Builder of `folder`; see README.md for the contents of a record."""

    OPTIONS = Options
