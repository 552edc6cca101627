# SPDX-License-Identifier: Apache-2.0
"""Preflight page: counts of problems in a folder of media, and each file with its picture."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreflightFile:
    """One file of the page.

    `problem` is "" for a file that is fine; `action` says what is done with it ("keep", "skip",
    ...); `facts` are short texts; `thumbnail` is a JPEG in base64, or "".
    """

    name: str
    problem: str
    reason: str
    action: str
    num_clips: int
    facts: tuple[str, ...]
    thumbnail: str = ""


def preflight_html(
    title: str,
    counts: Mapping[str, int],
    meanings: Mapping[str, str],
    files: Sequence[PreflightFile],
    *,
    limit: int = 400,
) -> str:
    """HTML of an inspection, in one file that opens from disk; all text is escaped.

    Args:
      title: its heading.
      counts: files by problem, in the order to show.
      meanings: problem -> what it means.
      files: all of them; those with problems are shown first, and at most `limit` altogether.
      limit: how many files are shown; the page says how many are not.
    """
    ordered = sorted(files, key=lambda file: not file.problem)
    template = resources.files("mmdisco_jax.export").joinpath("preflight.html").read_text("utf-8")
    left_out = len(ordered) - limit
    fields = {
        "title": escape(title),
        "counts": "".join(_count(key, n, meanings.get(key, "")) for key, n in counts.items() if n),
        "files": "".join(map(_file, ordered[:limit])),
        "rest": f"{left_out} more files are in the JSON report." if left_out > 0 else "",
    }
    # One pass, so that a text that looks like a field is not filled in again.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: fields[found[1]], template)


def _count(problem: str, number: int, meaning: str) -> str:
    name = problem.replace("_", " ")
    kind = "fine" if problem == "fine" else "problem"
    return (
        f'<div class="{kind}"><dt>{escape(name)}</dt><dd><strong>{number}</strong> '
        f"{escape(meaning)}</dd></div>"
    )


def _file(file: PreflightFile) -> str:
    picture = (
        f'<img src="data:image/jpeg;base64,{escape(file.thumbnail)}" alt="" loading="lazy">'
        if file.thumbnail
        else '<div class="none">no picture</div>'
    )
    verdict = f"{file.problem.replace('_', ' ')}: {file.reason}" if file.problem else "fine"
    kind = "problem" if file.problem else "fine"
    done = f"{file.action}, {file.num_clips} clips" if file.num_clips else file.action
    return (
        f'<li class="{kind}">{picture}<div><h3>{escape(file.name)}</h3>'
        f"<p>{escape(verdict)}</p><p>{escape(' · '.join(file.facts))}</p>"
        f'<p class="action">{escape(done)}</p></div></li>\n'
    )
