# SPDX-License-Identifier: Apache-2.0
"""The architecture, held by a test: who may import whom, how long a file may be."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Modules that every package may import; they import none but one another.
CORE = {
    *("types", "registry", "callables", "parallel", "io", "datasets", "checks", "resources"),
    *("settings", "matching"),
}
# package -> packages of mmdisco_jax that it may import, besides itself and the core.
ALLOWED: dict[str, set[str]] = {name: set() for name in CORE}
ALLOWED |= {
    "porting": set(),
    "process": set(),
    "nn": {"process"},
    "codecs": {"process", "nn", "porting"},
    "text": {"process", "nn", "porting"},
    "base_models": {"process", "nn", "codecs", "text", "porting"},
    "media": set(),
    "inputs": {"media"},
    "discriminator": {"process", "nn"},
    "guidance": {"process"},
    "samplers": {"process", "codecs"},
    "export": set(),
    "metrics": set(),
}
LIBRARY = set(ALLOWED)
ALLOWED["training"] = {"porting"}
ALLOWED["worlds"] = LIBRARY | {"training"}
ALLOWED["sections"] = {"discriminator", "guidance", "samplers"}
ALLOWED["experiment"] = {"base_models", "discriminator", "samplers", "sections"}
ALLOWED["pair"] = {"base_models", "discriminator", "process"}
ALLOWED["system"] = LIBRARY | {"experiment", "losses", "pair", "sections"}
ALLOWED["losses"] = LIBRARY | {"training", "pair", "system"}
ALLOWED["tasks"] = ALLOWED["losses"] | {"worlds", "experiment", "sections", "losses"}
ALLOWED["recipes"] = set()
ALLOWED["cli"] = {"tasks", "experiment", "system", "text"}
# What only tests and conversion may touch, and what only configs and their one reader may touch.
FOREIGN = {"torch", "tensorflow", "diffusers"}
SECTIONS = {
    *("seed", "data", "clip", "bases", "discriminator", "super_resolution", "guidance", "weights"),
    *("fakes", "sample", "evaluate", "bench", "train", "mesh", "convert", "toy"),
}
MAX_LINES, MAX_FUNCTION_LINES = 500, 60


def _modules():
    return sorted((ROOT / "mmdisco_jax").rglob("*.py"))


def _package(path: Path) -> str:
    parts = path.relative_to(ROOT / "mmdisco_jax").with_suffix("").parts
    return "" if parts == ("__init__",) else parts[0]


def _imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_imports_follow_the_layers():
    wrong = []
    for path in _modules():
        package = _package(path)
        if not package:  # the public interface names parts of every layer
            continue
        for name in _imports(path):
            top, *rest = name.split(".")
            target = "data" if top == "data" else rest[0] if top == "mmdisco_jax" and rest else ""
            if not target or target == package or target in CORE:
                continue
            if target not in ALLOWED[package]:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_every_package_is_in_the_table():
    assert {_package(path) for path in _modules()} - {""} == set(ALLOWED)


def test_run_time_needs_no_torch_or_tensorflow():
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in _modules()
        if _package(path) != "porting"
        for name in _imports(path)
        if name.split(".")[0] in FOREIGN
    ]
    assert not wrong, "\n".join(wrong)


def test_the_library_never_sees_a_config_object():
    readers = {_package(p) for p in _modules() if any("ml_collections" in n for n in _imports(p))}
    assert readers <= {"experiment", "cli"}
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}: config.{node.attr}"
        for path in _modules()
        if _package(path) not in ("experiment", "cli")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "config"
        and node.attr in SECTIONS
    ]
    assert not wrong, "\n".join(wrong)


def _written_here() -> list[Path]:
    return [
        *_modules(),
        *(p for r in ("configs", "data", "tests") for p in ROOT.glob(f"{r}/**/*.py")),
    ]


def test_files_are_short():
    lengths = {path: len(path.read_text().splitlines()) for path in _written_here()}
    assert max(lengths.values()) <= MAX_LINES, max(lengths, key=lambda path: lengths[path])


def test_functions_are_short():
    long = [
        f"{path.relative_to(ROOT)}: {node.name}, {length} lines"
        for path in _written_here()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]
    assert not long, "\n".join(long)
