# SPDX-License-Identifier: Apache-2.0
"""TFDS builder of `folder`: clips of media files from a folder, a list or a CSV table."""

import dataclasses

from mmdisco_jax.media.builder import MediaBuilder, MediaOptions
from mmdisco_jax.media.entries import Entry, read_csv, read_list, scan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(MediaOptions):
    """Options of `MediaOptions`, and the choice of files.

    By default all media files of `folder` are used, recursively.

    Attributes:
      files: a text file that names one file a line, relative to `folder`.
      table: a CSV with the column file, relative to `folder`, and optionally caption,
        start_seconds and split.
      test_fraction: share of the files for `test`, in [0, 1]. A file's split depends only on
        `seed` and its own name.

    Raises:
      ValueError: `files` and `table` are both set, or a value is out of its range.
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
    """TFDS builder of `folder`; see README.md."""

    OPTIONS = Options
