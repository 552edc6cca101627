# SPDX-License-Identifier: Apache-2.0
"""Records are compared by contents, and say what differs."""

from mmdisco_jax.provenance import announce, code_version, differences, entry, file_entry

A, B = "a" * 64, "b" * 64


def test_files_are_compared_by_contents_and_named_with_paths(tmp_path):
    before = {"weights": {"video": entry("runs/old", A)}, "version": "1", "commit": "x"}
    moved = {"weights": {"video": entry("runs/new", A)}, "version": "2", "commit": "y"}
    assert differences(before, moved) == []
    other = {"weights": {"video": entry("runs/old", B)}}
    assert differences(before, other) == [
        "weights.video was runs/old [sha256 aaaaaaaaaaaa], now runs/old [sha256 bbbbbbbbbbbb]"
    ]
    path = tmp_path / "w"
    path.write_bytes(b"abc")
    assert file_entry(path)["sha256"].startswith("ba7816bf")


def test_settings_are_compared_whatever_their_form():
    before = {"settings": {"steps": (1, 2), "empty": {}, "gone": None}}
    assert differences(before, {"settings": {"steps": [1, 2], "empty": {}, "gone": None}}) == []
    now = {"settings": {"steps": [1, 3], "empty": {"x": 1}}, "data": entry("d", A)}
    lines = differences(before, now)
    assert "settings.steps was [1, 2], now [1, 3]" in lines
    assert "settings.gone was None, now 'absent'" in lines
    assert "data was 'absent', now d [sha256 aaaaaaaaaaaa]" in lines
    assert differences(before, now, ignored=("settings", "data")) == []
    assert differences(before, {**before, "settings2": 1}, ignored=("settings",)) != []


def test_files_in_use_are_named_once(capsys):
    shared = entry("d.safetensors", A)
    announce(
        code_version()
        | {"weights": {"audio": entry("a.safetensors", B)}}
        | {"variants": {"one": {"discriminator": shared}, "two": {"discriminator": shared}}}
    )
    assert capsys.readouterr().err.splitlines() == [
        "using audio: a.safetensors [sha256 bbbbbbbbbbbb]",
        "using discriminator: d.safetensors [sha256 aaaaaaaaaaaa]",
    ]


def test_the_code_has_a_version():
    assert set(code_version()) == {"version", "commit"} and all(code_version().values())
