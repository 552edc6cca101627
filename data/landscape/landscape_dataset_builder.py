# SPDX-License-Identifier: Apache-2.0
"""TFDS builder of `landscape`: nature scenes with their sound, as MM-Diffusion released them."""

import dataclasses
import re

from mmdisco_jax.media.builder import MediaBuilder, MediaOptions
from mmdisco_jax.media.entries import Entry, scan, split_by_folder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(MediaOptions):
    """Options of `MediaOptions`, with `folder` as the root of the released dataset.

    Files in a folder `train` or `test` get that split. Of the other source videos a tenth goes to
    `test`.
    """

    def entries(self) -> list[Entry]:
        return [_grouped(entry) for entry in split_by_folder(scan(self.folder))]

    def shares(self) -> dict[str, float]:
        return {"test": 0.1, "train": 0.9}


def _grouped(entry: Entry) -> Entry:
    """Groups clips by source video, whose name they share up to a number at the end."""
    stem = re.sub(r"([_-]\d+)+$", "", entry.path.stem)
    return dataclasses.replace(entry, group=stem or entry.path.stem)


class Builder(MediaBuilder):
    """TFDS builder of `landscape`; see README.md."""

    OPTIONS = Options
