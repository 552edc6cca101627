# SPDX-License-Identifier: Apache-2.0
"""File names from sample numbers and prompts, safe on every file system."""

import re
import unicodedata

MAX_STEM_LENGTH = 80  # leaves room for a counter and suffixes below the usual limit of 255 bytes

_RESERVED = frozenset(  # device names on Windows, whatever the suffix
    ["con", "prn", "aux", "nul"] + [f"{port}{n}" for port in ("com", "lpt") for n in range(10)]
)


def safe_stem(prompt: str) -> str:
    """File name without suffix that resembles `prompt`: 1..80 of the characters `A-Za-z0-9_-`.

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


def media_stem(number: int, prompt: str | None = None) -> str:
    """File name of sample `number`, and what a file system can hold of its prompt if it has one.

    None is a sample without a prompt; the empty prompt is "untitled".
    """
    return f"{number:05d}" if prompt is None else f"{number:05d}-{safe_stem(prompt)}"
