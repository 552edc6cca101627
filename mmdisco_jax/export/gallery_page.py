# SPDX-License-Identifier: Apache-2.0
"""Gallery page: clips side by side with marks and scores, as one HTML file opened from disk.

The page refers to its media by relative paths and to nothing else, so its folder can be moved,
zipped or served as it is. `gallery.write_gallery` writes the media too.
"""

import dataclasses
import os
import re
from collections.abc import Mapping
from html import escape
from importlib import resources
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from mmdisco_jax.io import write_bytes
from mmdisco_jax.matching import match_times

Score = str | bool | int | float


@dataclasses.dataclass(frozen=True, kw_only=True)
class GalleryClip:
    """One clip: its files, as paths relative to the page's folder with "/", its marks and scores.

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
        """Paths of the files that the page refers to."""
        return tuple(p for p in (self.video, self.spectrogram, self.film_strip) if p is not None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GallerySeed:
    """Clips made from one seed, side by side, in the order to compare them.

    prompt: the text they were made for, which is then their heading.
    """

    seed: int | str
    clips: tuple[GalleryClip, ...]
    prompt: str = ""

    @property
    def name(self) -> str:
        """Heading of the row: its prompt and seed."""
        return f"{self.prompt} (seed {self.seed})" if self.prompt else f"Seed {self.seed}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GalleryTable:
    """Table of results, shown as given: the first column names the row."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Score, ...], ...]

    def __post_init__(self):
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"row {row} has {len(row)} cells, the header {len(self.header)}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GalleryPage:
    """Content of a page. An impact and an onset match when at most `tolerance_seconds` apart."""

    title: str
    description: str
    seeds: tuple[GallerySeed, ...]
    tolerance_seconds: float
    table: GalleryTable | None = None


def write_page(path: str | os.PathLike[str], page: GalleryPage) -> Path:
    """Writes the page to `path`, beside which its media must already lie; returns the path.

    Raises:
      FileNotFoundError: a file the page refers to is missing.
      WriteError: the page could not be written; nothing is left behind.
    """
    folder = Path(path).parent
    for clip in (clip for seed in page.seeds for clip in seed.clips):
        for name in clip.files():
            if not (folder / name).is_file():
                raise FileNotFoundError(
                    f"the gallery refers to {name!r}, but {folder / name} does not exist; "
                    "write the media first, and the page last."
                )
    write_bytes(path, page_html(page).encode())
    return Path(path)


def page_html(page: GalleryPage) -> str:
    """HTML of the page; all text is escaped and all file names quoted."""
    template = resources.files("mmdisco_jax.export").joinpath("gallery.html").read_text("utf-8")
    fields = {
        "title": escape(page.title),
        "description": escape(page.description),
        "key": _key(page.tolerance_seconds),
        "link": '<a href="#results">The results in numbers</a>' if page.table else "",
        "seeds": "".join(_seed(seed, page.tolerance_seconds) for seed in page.seeds),
        "table": _table(page.table) if page.table else "",
    }
    # One pass, so that a text that looks like a field is not filled in again.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: fields[found[1]], template)


def _key(tolerance_seconds: float) -> str:
    return (
        f"{_triangle('seen')} marks an impact you see and {_triangle('heard')} the start of a "
        "sound you hear: the two are filled and joined by a line when they come within "
        f"±{1000 * tolerance_seconds:.3g} ms of each other, and hollow when nothing answers."
    )


def _seed(seed: GallerySeed, tolerance_seconds: float) -> str:
    name = seed.name
    turns = (
        f'<button class="turns quiet script" type="button" hidden>Play one after the other'
        f'<span class="hide">, {escape(name)}</span></button>'
        if len(seed.clips) > 1
        else ""
    )
    clips = "".join(_clip(clip, name, tolerance_seconds) for clip in seed.clips)
    return (
        f'<section class="seed"><header><h2>{escape(name)}</h2>{turns}</header>'
        f'<div class="clips">{clips}</div></section>\n'
    )


def _clip(clip: GalleryClip, seed_name: str, tolerance_seconds: float) -> str:
    matches = match_times(clip.impact_seconds, clip.onset_seconds, tolerance_seconds)
    name = escape(f"{clip.label}, {seed_name}")
    scores = "".join(
        f"<div><dt>{escape(key)}</dt>{_cell('dd', value)}</div>"
        for key, value in clip.scores.items()
    )
    return f"""
<article class="clip" data-seconds="{clip.clip_seconds:g}">
<div class="top">
<video src="{_url(clip.video)}" preload="metadata" playsinline controls
 aria-label="Video with sound: {name}"></video>
<div class="facts"><h3>{escape(clip.label)}</h3>{_verdict(clip, matches)}
<button class="play script" type="button" hidden><span class="word">Play</span><span
 class="hide"> {name}</span></button></div>
</div>
{_timeline(clip, matches, name)}
<p class="error" role="alert" hidden></p>
<dl>{scores}</dl>
</article>
"""


def _verdict(clip: GalleryClip, matches: list[tuple[int, int]]) -> str:
    seen, heard, joined = len(clip.impact_seconds), len(clip.onset_seconds), len(matches)
    if not seen and not heard:
        return ""
    extra = heard - joined
    also = f", {extra} {'sound' if extra == 1 else 'sounds'} without an impact" if extra else ""
    whole = " all" if joined == seen and not extra else ""
    return (
        f'<p class="verdict{whole}"><strong>{joined} of {seen}</strong> '
        f"{'impact' if seen == 1 else 'impacts'} heard on time{also}</p>"
    )


def _timeline(clip: GalleryClip, matches: list[tuple[int, int]], name: str) -> str:
    def percent(seconds: float) -> str:
        return f"{100 * seconds / clip.clip_seconds:.3f}"

    def lane(kind: str, times: tuple[float, ...], joined: set[int], colour: str) -> str:
        marks = "".join(
            _triangle(kind, f"left:{percent(t)}%;color:{colour}", alone=i not in joined)
            for i, t in enumerate(times)
        )
        return f'<div class="lane">{marks}</div>'

    def line(x_top: float, x_bottom: float, y: str, colour: str, kind: str) -> str:
        return (
            f'<line class="{kind}" x1="{percent(x_top)}" x2="{percent(x_bottom)}" {y} '
            f'stroke="{colour}"/>'
        )

    impacts, onsets = clip.impact_seconds, clip.onset_seconds
    seen, heard = {i for i, _ in matches}, {j for _, j in matches}
    full, upper, lower = 'y1="0" y2="100"', 'y1="0" y2="45"', 'y1="55" y2="100"'
    lines = [line(impacts[i], onsets[j], full, clip.impact_colour, "") for i, j in matches]
    lines += [
        line(t, t, upper, clip.impact_colour, "alone")
        for i, t in enumerate(impacts)
        if i not in seen
    ]
    lines += [
        line(t, t, lower, clip.onset_colour, "alone")
        for j, t in enumerate(onsets)
        if j not in heard
    ]
    strip = (
        f'<img class="strip" src="{_url(clip.film_strip)}" alt="The frames of {name} in a row">'
        if clip.film_strip
        else ""
    )
    listing = (
        f"Spectrogram of {name}. Impacts at {_times(impacts)}; sounds begin at {_times(onsets)}; "
        f"{len(matches)} of them match."
    )
    return f"""<div class="time">{strip}
{lane("seen", impacts, seen, clip.impact_colour)}
<div class="sound"><img src="{_url(clip.spectrogram)}" alt="{listing}">
<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">{"".join(lines)}</svg>
</div>
{lane("heard", onsets, heard, clip.onset_colour)}
<div class="head script" hidden></div>
<input class="seek script" type="range" min="0" max="{clip.clip_seconds:g}" step="0.025" value="0"
 aria-label="Position in {name}, seconds" hidden></div>
<div class="axis" aria-hidden="true"><span>0 s</span><span>{clip.clip_seconds:g} s</span></div>"""


def _table(table: GalleryTable) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.header)
    rows = "".join(
        "<tr>"
        + "".join(_cell("th" if i == 0 else "td", cell) for i, cell in enumerate(row))
        + "</tr>"
        for row in table.rows
    )
    return (
        f'<section id="results"><h2>Results</h2><p class="lead" id="caption">'
        f'{escape(table.caption)}</p><div class="scroll" tabindex="0" role="region" '
        f'aria-labelledby="caption"><table aria-labelledby="caption"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>\n"
    )


def _cell(tag: str, value: Score) -> str:
    if isinstance(value, bool):
        kind, text = ("yes", "✓ yes") if value else ("no", "✗ no")
        return f'<{tag} class="{kind}">{text}</{tag}>'
    scope = ' scope="row"' if tag == "th" else ""
    text = f"{value:.2f}" if isinstance(value, float) else str(value)
    return f"<{tag}{scope}>{escape(text)}</{tag}>"


def _triangle(kind: str, style: str = "", *, alone: bool = False) -> str:
    """Mark that points at the spectrogram: down for "seen", up for "heard"."""
    path = "M1 1H9L5 8Z" if kind == "seen" else "M1 8H9L5 1Z"
    return (
        f'<svg class="mark{" alone" if alone else ""}" viewBox="0 0 10 9" aria-hidden="true" '
        f'style="{style}"><path d="{path}"/></svg>'
    )


def _times(times: tuple[float, ...]) -> str:
    return ", ".join(f"{t:.2f} s" for t in times) or "no time"


def _url(path: str) -> str:
    return escape(quote(path, safe="/"))
