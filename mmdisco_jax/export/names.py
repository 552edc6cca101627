# SPDX-License-Identifier: Apache-2.0
"""File names from prompts: safe on every file system, inside the folder, never taken twice."""

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

MAX_STEM_LENGTH = 80  # leaves room for a counter and suffixes below the usual limit of 255 bytes

_RESERVED = frozenset(  # device names on Windows, whatever the suffix
    ["con", "prn", "aux", "nul"] + [f"{port}{n}" for port in ("com", "lpt") for n in range(10)]
)


def safe_stem(prompt: str) -> str:
    """A file name without suffix that resembles `prompt`: 1..80 of the characters `A-Za-z0-9_-`.

    Accents are dropped, every run of other characters becomes one `_`, and nothing is left at the
    ends. There is no dot, so `Path.with_suffix` is safe on it, and no path separator. A prompt of
    which nothing remains becomes "untitled"; a reserved device name gets `_` at its end.
    """
    decomposed = unicodedata.normalize("NFKD", prompt)
    plain = "".join(c for c in decomposed if not unicodedata.combining(c))
    stem = re.sub(r"[^A-Za-z0-9-]+", "_", plain).strip("_-")[:MAX_STEM_LENGTH].strip("_-")
    if not stem:
        return "untitled"
    return f"{stem}_" if stem.casefold() in _RESERVED else stem


def unique_stems(prompts: Sequence[str], *, taken: Iterable[str] = ()) -> list[str]:
    """One safe stem for each prompt, all different, and different from every name in `taken`.

    Names count as equal when they differ in case only, as some file systems have it; of a taken
    name the part before the first dot counts. Repeats get `-2`, `-3`, ... in the order of
    `prompts`, so the same prompts and the same `taken` always give the same names.
    """
    used = {name.split(".", 1)[0].casefold() for name in taken}
    stems = []
    for prompt in prompts:
        base = stem = safe_stem(prompt)
        count = 1
        while stem.casefold() in used:
            count += 1
            stem = f"{base}-{count}"
        used.add(stem.casefold())
        stems.append(stem)
    return stems


def unique_paths(folder: str | os.PathLike[str], prompts: Sequence[str]) -> list[Path]:
    """Paths without suffix in `folder`, one for each prompt, that no file there has taken.

    Give each its suffix with `with_suffix(".mp4")`, or several: a stem is free of files of any
    suffix. A folder that does not exist yet counts as empty.
    """
    root = Path(folder)
    taken = [entry.name for entry in root.iterdir()] if root.is_dir() else []
    return [root / stem for stem in unique_stems(prompts, taken=taken)]
