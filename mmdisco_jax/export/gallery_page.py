# SPDX-License-Identifier: Apache-2.0
"""What a gallery page shows: seeds, their clips with marks and scores, and a table."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import PurePosixPath

Score = str | bool | int | float


@dataclasses.dataclass(frozen=True, kw_only=True)
class GalleryClip:
    """One clip: its files, as paths relative to the page's folder with "/", and what was measured.

    label: what made it, such as "guided". video: MP4. spectrogram and film_strip: the bare PNGs of
    `plots`, as wide as the clip is long. impact_seconds, onset_seconds: times in
    [0, clip_seconds]. scores: names and values in the order to show; floats get two decimals.
    impact_colour, onset_colour: "#rrggbb", such as the colour of the ball.
    """

    label: str
    video: str
    spectrogram: str
    clip_seconds: float
    film_strip: str | None = None
    impact_seconds: tuple[float, ...] = ()
    onset_seconds: tuple[float, ...] = ()
    scores: Mapping[str, Score] = dataclasses.field(default_factory=dict)
    impact_colour: str = "#ffffff"
    onset_colour: str = "#7fe3ff"

    def __post_init__(self):
        for path in self.files():
            parts = PurePosixPath(path).parts
            if not parts or parts[0] == "/" or ".." in parts or "\\" in path:
                raise ValueError(
                    f"gallery file {path!r} must be a relative path with '/' inside the page's "
                    "folder, so that the folder can be moved; copy the file there."
                )
        if not 0 < self.clip_seconds < float("inf"):
            raise ValueError(f"clip_seconds is {self.clip_seconds}, but must be finite and > 0.")
        for seconds in (*self.impact_seconds, *self.onset_seconds):
            if not 0 <= seconds <= self.clip_seconds:
                raise ValueError(
                    f"clip {self.label!r} has a mark at {seconds} s, outside 0..clip_seconds = "
                    f"{self.clip_seconds} s; give times in seconds."
                )
        for colour in (self.impact_colour, self.onset_colour):
            if not re.fullmatch(r"#[0-9a-fA-F]{6}", colour):
                raise ValueError(f"colour is {colour!r}, but must be of the form '#rrggbb'.")

    def files(self) -> tuple[str, ...]:
        """The files the page will refer to."""
        return tuple(p for p in (self.video, self.spectrogram, self.film_strip) if p is not None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GallerySeed:
    """The clips made from one seed, side by side, in the order to compare them.

    prompt: the text they were made for, which is then their heading.
    """

    seed: int | str
    clips: tuple[GalleryClip, ...]
    prompt: str = ""

    @property
    def name(self) -> str:
        return f"{self.prompt} (seed {self.seed})" if self.prompt else f"Seed {self.seed}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GalleryTable:
    """A table of results, shown as given: the first column names the row."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Score, ...], ...]

    def __post_init__(self):
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"row {row} has {len(row)} cells, the header {len(self.header)}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GalleryPage:
    """The page. An impact and an onset match when at most `tolerance_seconds` apart."""

    title: str
    description: str
    seeds: tuple[GallerySeed, ...]
    tolerance_seconds: float
    table: GalleryTable | None = None
