# SPDX-License-Identifier: Apache-2.0
"""Prompts on the command line and in files: what is read, and what is refused before any work."""

from pathlib import Path

import pytest

from mmdisco_jax.text.prompts import MAX_CHARACTERS, clean_prompt, clean_prompts, read_prompts


@pytest.mark.parametrize(
    ("prompt", "cleaned"),
    [
        ("", ""),
        (" \t\n\x00\ufeff ", ""),
        ("  a dog\tbarks\n", "a dog barks"),
        ("a  b", "a  b"),  # RoBERTa's tokens tell; left as the reference has it
        ("../../x", "../../x"),  # file names are made safe where files are named
        ("🐕‍🦺 Ünï", "🐕‍🦺 Ünï"),  # joiners inside an emoji stay
        ("x" * 5000, "x" * 5000),
    ],
)
def test_cleaning(prompt, cleaned):
    assert clean_prompt(prompt) == cleaned


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], 'no prompts.*"" is the unconditional'),
        (["a", "x" * (MAX_CHARACTERS + 1)], f"prompt 2: .*{MAX_CHARACTERS + 1} characters"),
        (["caf\udce9"], r"prompt 1: .*at position 3.*UTF-8"),
        (["a", None], "prompt 2: .*None, but must be text"),
    ],
)
def test_bad_prompts_are_named(prompts, message):
    with pytest.raises(ValueError, match=message):
        clean_prompts(prompts)


def test_repeats_and_empty_ones_stay():
    assert clean_prompts(["a", "", "a "]) == ["a", "", "a"]


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["lf", "crlf", "cr"])
def test_prompt_file(tmp_path: Path, bom, end):
    lines = ["a dog\u2028barks", "", "  ", "🌊 waves", "a dog\u2028barks"]
    path = tmp_path / "prompts.txt"
    path.write_bytes(bom + end.join(line.encode() for line in lines))
    assert read_prompts(path) == ["a dog\u2028barks", "🌊 waves", "a dog\u2028barks"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no prompts"),
        (b"\n \n", "holds no prompts"),
        (b"fine\n\nca\xe9\n", r"bad.txt, line 3: byte 0xe9 at position 2 is not UTF-8"),
        ("a dog".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        (b"a\n" + b"x" * (MAX_CHARACTERS + 1), "line 2: .*characters"),
    ],
)
def test_bad_prompt_files_are_named(tmp_path: Path, content, message):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_prompts(path)


def test_no_prompt_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"absent\.txt: no such file of prompts"):
        read_prompts(tmp_path / "absent.txt")
