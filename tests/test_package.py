# SPDX-License-Identifier: Apache-2.0
"""Requirements: all imports are in the lists, and nothing else is."""

import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import mmdisco_jax

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OURS = {"mmdisco_jax", "configs", "data", "tests"}
# Import names that are not the name of their distribution.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "absl": "absl-py",
    "cv2": "opencv-python-headless",
    "google": "protobuf",
    "orbax": "orbax-checkpoint",
    "sklearn": "scikit-learn",
}
# Run, or imported by a name in a string.
TOOLS = {"diffusers", "pyright", "pytest-xdist", "ruff"}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _named(lines: list[str]) -> set[str]:
    """The distributions that requirement lines name."""
    names = (re.match(r"[A-Za-z0-9._-]+", line.strip()) for line in lines)
    return {_canonical(name.group()) for name in names if name}


def _imported(*folders: str) -> set[str]:
    """The distributions that Python files import, at the top or in a function."""
    names = set()
    for path in (path for folder in folders for path in ROOT.glob(f"{folder}/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.add(node.module.split(".")[0])
    names -= set(sys.stdlib_module_names) | OURS
    return {_canonical(DISTRIBUTIONS.get(name) or name) for name in names}


def _requirements() -> set[str]:
    return _named((ROOT / "requirements.txt").read_text().splitlines())


def _extra(name: str) -> set[str]:
    return _named(PROJECT["project"]["optional-dependencies"][name])


def test_requirements_are_what_is_imported():
    imported = _imported("mmdisco_jax", "configs", "data")
    assert imported - _extra("torch") == _requirements()


def test_the_tests_requirements_are_what_they_import():
    assert _imported("tests") - _requirements() | TOOLS == _extra("test")


@pytest.mark.parametrize("extra", ["cuda", "test", "torch", "tpu"])
def test_extras(extra):
    assert _extra(extra)


def test_the_version_is_in_one_place():
    assert "version" in PROJECT["project"]["dynamic"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", mmdisco_jax.__version__)
    changelog = (ROOT / ".github/CHANGELOG.md").read_text()
    assert f"## {mmdisco_jax.__version__}" in changelog


def test_the_console_script_exists():
    (script,) = PROJECT["project"]["scripts"].items()
    entry = metadata.EntryPoint(name=script[0], value=script[1], group="console_scripts")
    assert script[0] == "mmdisco" and callable(entry.load())


def test_a_wheel_holds_every_file_that_a_checkout_uses():
    """One top-level package; its folders of Python files, its pages and its weights."""
    setup = PROJECT["tool"]["setuptools"]
    assert set(setup["package-dir"]) == set(setup["packages"])
    assert {name.split(".")[0] for name in setup["packages"]} == {"mmdisco_jax"}
    globs = {
        (setup["package-dir"][package], pattern)
        for package in setup["packages"]
        for owner, patterns in setup["package-data"].items()
        for pattern in patterns
        if owner in ("*", package)
    }
    packed = {path for folder, pattern in globs for path in (ROOT / folder).glob(pattern)}
    needed = {
        path
        for folder in setup["package-dir"].values()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix not in (".md", ".pyc", ".json")
    }
    assert needed == packed
