# SPDX-License-Identifier: Apache-2.0
"""The public interface: lazy, complete, documented, and the same for type checkers."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import mmdisco_jax as mm

MAX_SECONDS = 0.3
_PROGRAM = """
import sys, time
start = time.perf_counter()
import mmdisco_jax
seconds = time.perf_counter() - start
heavy = {"jax", "jaxlib", "numpy", "flax", "tensorflow_datasets"} & set(sys.modules)
assert not heavy, f"imported at once: {heavy}"
print(seconds)
"""


def test_importing_the_package_is_cheap_and_starts_no_jax():
    run = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < MAX_SECONDS


@pytest.mark.parametrize("name", mm.__all__)
def test_a_public_name_resolves_and_is_documented(name):
    value = getattr(mm, name)
    assert value is getattr(mm, name) and name in dir(mm)
    lines = [line for line in (inspect.getdoc(value) or "").splitlines() if line.strip()]
    assert len(lines) > 1, f"the docstring of {name} says too little: {lines}"
    assert lines[0].endswith("."), f"the docstring of {name} begins with no sentence: {lines[0]}"


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(mm.__file__).read_text())
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    assert [ast.unparse(block.test) for block in blocks] == ["TYPE_CHECKING"]
    imported = {}
    for node in blocks[0].body:
        assert isinstance(node, ast.ImportFrom)
        imported |= {a.asname: f"{node.module}:{a.name}" for a in node.names}
    assert imported == mm._PUBLIC


def test_an_unknown_name_is_told():
    with pytest.raises(AttributeError, match=r"'jiont'.*__all__ lists"):
        mm.jiont  # noqa: B018 # pyright: ignore


def test_modules_are_imported_as_ever():
    """`import mmdisco_jax.io` does not go through the table."""
    assert importlib.import_module("mmdisco_jax.io").write_bytes
    assert mm.__version__.count(".") == 2
