# SPDX-License-Identifier: Apache-2.0
"""The gallery page as HTML: fragments filled into the template `gallery.html`."""

import re
from html import escape
from importlib import resources
from urllib.parse import quote

from mmdisco_jax.export.gallery_page import (
    GalleryClip,
    GalleryPage,
    GallerySeed,
    GalleryTable,
    Score,
)
from mmdisco_jax.matching import match_times


def page_html(page: GalleryPage) -> str:
    """The page as HTML; all text is escaped and all file names quoted."""
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
    """A mark that points at the spectrogram: down for "seen", up for "heard"."""
    path = "M1 1H9L5 8Z" if kind == "seen" else "M1 8H9L5 1Z"
    return (
        f'<svg class="mark{" alone" if alone else ""}" viewBox="0 0 10 9" aria-hidden="true" '
        f'style="{style}"><path d="{path}"/></svg>'
    )


def _times(times: tuple[float, ...]) -> str:
    return ", ".join(f"{t:.2f} s" for t in times) or "no time"


def _url(path: str) -> str:
    return escape(quote(path, safe="/"))
