# SPDX-License-Identifier: Apache-2.0
"""Registries: registered names, and the components of others by their place."""

import sys

import pytest

from mmdisco_jax.registry import Registry

SHAPES = Registry("shape", {"path": "pathlib:Path", "fraction": "fractions:Fraction"})


def test_a_name_and_a_place_give_the_same_component():
    assert SHAPES.names() == ["fraction", "path"]
    assert SHAPES.get("path") is SHAPES.get("pathlib:Path")


def test_a_module_of_the_user_s_own(tmp_path, monkeypatch):
    (tmp_path / "my_parts.py").write_text("class Mine:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert SHAPES.get("my_parts:Mine") is sys.modules["my_parts"].Mine


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("circle", "unknown shape 'circle': choose one of fraction, path, or .*module:attribute"),
        ("no_such_module:Mine", "there is no module 'no_such_module'"),
        ("os.no_such_module:Mine", "there is no module 'os.no_such_module'"),
        ("pathlib:Circle", "module 'pathlib' has no attribute 'Circle'"),
        ("pathlib:", "is not understood: write 'package.module:attribute'"),
        (":Path", "is not understood"),
        ("pathlib:Path:open", "is not understood"),
    ],
)
def test_what_is_not_there_is_named(name, message):
    with pytest.raises(ValueError, match=message):
        SHAPES.get(name)


def test_an_import_that_fails_inside_the_module_keeps_its_own_error(tmp_path, monkeypatch):
    (tmp_path / "broken_parts.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        SHAPES.get("broken_parts:Mine")
