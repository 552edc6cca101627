# SPDX-License-Identifier: Apache-2.0
"""A dataset as a user would add one: this file, and a line in the registry."""

import dataclasses

from mmdisco_jax.media.builder import MediaBuilder, MediaOptions
from mmdisco_jax.media.entries import Entry, scan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(MediaOptions):
    """Files named CAPTION_NUMBER.mkv; those with an odd number are for testing."""

    def entries(self) -> list[Entry]:
        return [_described(entry) for entry in scan(self.folder)]


def _described(entry: Entry) -> Entry:
    caption, number = entry.path.stem.split("_")
    split = "test" if int(number) % 2 else "train"
    return dataclasses.replace(entry, caption=caption, split=split)


class ToyClips(MediaBuilder):
    OPTIONS = Options
