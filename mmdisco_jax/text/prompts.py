# SPDX-License-Identifier: Apache-2.0
"""Reading and cleaning of prompts from the command line or a text file."""

import unicodedata
from collections.abc import Iterable
from pathlib import Path

MAX_CHARACTERS = 10_000  # far more than any encoder reads; a longer text is probably a whole file
_OTHER_BOMS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\x00\x00\xfe\xff": "UTF-32"}


def clean_prompt(prompt: str) -> str:
    """Removes control characters and surrounding space from a prompt.

    Nothing else changes, so that an encoder reads exactly what its reference implementation would.
    An empty result is the unconditional prompt.

    Raises:
      ValueError: not a string, not valid Unicode, or longer than `MAX_CHARACTERS`.
    """
    if not isinstance(prompt, str):
        raise ValueError(f"a prompt is {prompt!r}, but must be text.")
    plain = "".join(" " if unicodedata.category(c) == "Cc" else c for c in prompt)
    cleaned = plain.replace("\ufeff", "").strip()
    if len(cleaned) > MAX_CHARACTERS:
        raise ValueError(
            f"the prompt {cleaned[:40]!r}... has {len(cleaned)} characters, but at most "
            f"{MAX_CHARACTERS} are taken, and encoders read a few hundred: shorten it."
        )
    try:
        cleaned.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the prompt {cleaned[:40]!r} has {cleaned[error.start]!r} at position {error.start}, "
            "which is no character: give it as UTF-8."
        ) from error
    return cleaned


def clean_prompts(prompts: Iterable[str]) -> list[str]:
    """Cleans each prompt with `clean_prompt`; keeps the order, repeats and empty prompts.

    Raises:
      ValueError: a bad prompt, named by its number from 1; or no prompts at all.
    """
    cleaned = []
    for number, prompt in enumerate(prompts, start=1):
        try:
            cleaned.append(clean_prompt(prompt))
        except ValueError as error:
            raise ValueError(f"prompt {number}: {error}") from error
    if not cleaned:
        raise ValueError('no prompts: give at least one; "" is the unconditional one.')
    return cleaned


def read_prompts(path: str | Path) -> list[str]:
    """Reads and cleans the prompts of a UTF-8 text file, one a line.

    A byte order mark is allowed. Lines end with LF, CRLF or CR, and blank ones are skipped.

    Raises:
      FileNotFoundError: no such file.
      ValueError: another encoding, a bad prompt (named by its line), or no prompts.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of prompts")
    content = path.read_bytes()
    for mark, encoding in _OTHER_BOMS.items():
        if content.startswith(mark):
            raise ValueError(f"{path}: is {encoding}; save it as UTF-8.")
    prompts = []
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            prompt = clean_prompt(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path}, line {number}: byte 0x{line[error.start]:02x} at position {error.start} "
                "is not UTF-8; save the file as UTF-8."
            ) from error
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        if prompt:
            prompts.append(prompt)
    if not prompts:
        raise ValueError(f"{path}: holds no prompts; write one a line.")
    return prompts
