# SPDX-License-Identifier: Apache-2.0
"""File names: whatever the prompt, inside the folder, distinct, and nobody else's."""

import random
import re

import pytest

from mmdisco_jax.export.names import MAX_STEM_LENGTH, safe_stem, unique_paths, unique_stems

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


def test_all_distinct_where_case_does_not_count():
    stems = unique_stems(prompts())
    assert len({stem.casefold() for stem in stems}) == len(prompts())


def test_a_counted_name_does_not_meet_a_prompt_that_looks_like_one():
    assert unique_stems(["cat", "cat-2", "Cat"]) == ["cat", "cat-2", "Cat-3"]


def test_paths_stay_inside_and_leave_existing_files_alone(tmp_path):
    (tmp_path / "Cat.spectrogram.png").write_text("kept")
    paths = unique_paths(tmp_path, ["cat", *prompts()])
    assert paths[0].name == "cat-2"
    for path in paths:
        target = path.with_suffix(".mp4")
        assert target.resolve().parent == tmp_path.resolve()
        assert not target.exists()
        target.touch()  # the file system accepts the name
    assert len(list(tmp_path.iterdir())) == len(paths) + 1


def test_a_folder_that_is_not_there_is_empty(tmp_path):
    assert [p.name for p in unique_paths(tmp_path / "new", ["a", "a"])] == ["a", "a-2"]


@pytest.mark.parametrize("name", ["con", "CON", "com1"])
def test_reserved_names_are_changed(name):
    assert safe_stem(name) == name + "_"
