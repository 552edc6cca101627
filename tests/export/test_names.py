# SPDX-License-Identifier: Apache-2.0
"""File names: whatever the prompt, inside the folder and distinct."""

import random
import re

import pytest

from mmdisco_jax.export.names import MAX_STEM_LENGTH, media_stem, safe_stem

NASTY = [
    "../../etc/passwd", "/etc/passwd", "a\\b\\c", "C:\\x", "", " ", ".", "..", ".hidden", "-rf",
    "\U0001f389\U0001f3b8", "x" * 300, "con", "NUL", "aux.txt", "LPT1", "a\x00b", "line\nbreak",
    "na\u00efve caf\u00e9", "\u65e5\u672c", "a%2Fb", "~root", "$HOME", "a*?<>|\":b", "\ud800",
]  # fmt: skip


def prompts():
    rng = random.Random(0)
    alphabet = "aAbB ./\\-_~:\x00\u00e9\u65e5\U0001f389"
    return NASTY + ["".join(rng.choices(alphabet, k=rng.randrange(12))) for _ in range(2000)]


def test_stems_are_plain_and_short():
    for prompt in prompts():
        stem = safe_stem(prompt)
        assert re.fullmatch(r"[A-Za-z0-9_-]+", stem), (prompt, stem)
        assert len(stem) <= MAX_STEM_LENGTH
        assert not stem.startswith(("-", "_"))
        assert stem.casefold() not in {"con", "nul", "aux", "prn", "lpt1"}


def test_a_readable_prompt_stays_readable():
    assert safe_stem("A dog barks, na\u00efve caf\u00e9!") == "A_dog_barks_naive_cafe"


def test_the_number_makes_a_name_unique_and_the_prompt_makes_it_readable(tmp_path):
    assert media_stem(7) == "00007"
    assert media_stem(7, "") == "00007-untitled"
    assert media_stem(12, "a dog") == "00012-a_dog"
    stems = [media_stem(number, prompt) for number, prompt in enumerate(prompts())]
    assert len({stem.casefold() for stem in stems}) == len(stems)
    for stem in stems:
        target = (tmp_path / stem).with_suffix(".mp4")
        assert target.resolve().parent == tmp_path.resolve()
        target.touch()  # the file system accepts the name


@pytest.mark.parametrize("name", ["con", "CON", "com1"])
def test_reserved_names_are_changed(name):
    assert safe_stem(name) == name + "_"
