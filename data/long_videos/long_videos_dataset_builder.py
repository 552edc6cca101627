# SPDX-License-Identifier: Apache-2.0
"""TFDS builder of `long_videos`: consecutive clips of long videos, split by video.

It follows the datasets of Paredes La Torre (13 h of a game, 64 h of concerts; arXiv 2603.16093):
the first seconds are skipped, clips of 34 s follow one another, and 90, 5 and 5 % of the videos go
to train, eval and test. The original clips are cut at key frames and so vary in length; these are
exact.
"""

import dataclasses

from mmdisco_jax.media.builder import MediaBuilder, MediaOptions
from mmdisco_jax.media.entries import Entry, scan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(MediaOptions):
    """Options of `MediaOptions`, with clips of 34 s by default.

    The first `skip_seconds` of each video are not used; a video without a clip after them has the
    problem "short".
    """

    clip_seconds: float = 34.0
    skip_seconds: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.skip_seconds < 0:
            raise ValueError(f"skip_seconds is {self.skip_seconds}, but must be >= 0.")

    def entries(self) -> list[Entry]:
        return [
            dataclasses.replace(entry, start_seconds=self.skip_seconds)
            for entry in scan(self.folder)
        ]

    def shares(self) -> dict[str, float]:
        return {"test": 0.05, "eval": 0.05, "train": 0.9}


class Builder(MediaBuilder):
    """TFDS builder of `long_videos`; see README.md."""

    OPTIONS = Options
