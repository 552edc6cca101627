# SPDX-License-Identifier: Apache-2.0
"""READMEs and lab notes: Python runs, commands parse, links resolve, numbers are recorded ones.

Numbers of the demo are compared with configs/results/bounce_demo.json, the metrics.json of one run.
"""

import ast
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from mmdisco_jax.cli import _define
from mmdisco_jax.experiment import load_config
from mmdisco_jax.metrics.api import Result
from mmdisco_jax.metrics.evaluation import Report
from mmdisco_jax.resources import CACHE_VARIABLE, find_config
from mmdisco_jax.tasks import TASKS

ROOT = Path(__file__).resolve().parents[1]
MAX_LINES = 130
PAGES = sorted(
    [
        ROOT / "README.md",
        *(
            p
            for f in ("configs", "data", "mmdisco_jax", "tests")
            for p in ROOT.glob(f"{f}/**/*.md")
        ),
        *ROOT.glob(".github/*.md"),
    ]
)
CONFIGS = sorted(p for p in ROOT.glob("configs/*.py") if p.stem != "__init__")
DEMO = ROOT / "configs/results/bounce_demo.json"


def _id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _fences(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def _readme() -> str:
    return (ROOT / "README.md").read_text()


def _lab_book() -> str:
    return (ROOT / "configs/README.md").read_text()


def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text())) or ""


@pytest.fixture(scope="module")
def demo() -> Report:
    rows = json.loads(DEMO.read_text())["rows"]
    return Report(rows={name: tuple(Result(**row) for row in some) for name, some in rows.items()})


def test_the_readme_is_short():
    assert len(_readme().splitlines()) <= MAX_LINES


def test_the_python_block_of_the_readme_writes_its_page(tmp_path, monkeypatch, capsys):
    """The block as it stands, but for fewer samples and steps."""
    (block,) = _fences(_readme(), "python")
    for long, short in (("range(8)", "range(2)"), ("schedules, 50)", "schedules, 4)")):
        assert long in block
        block = block.replace(long, short)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["page"].is_file() and names["page"].parent == Path("page")
    assert {p.parent.name for p in Path("page").glob("*/*.mp4")} == {"independent", "guided"}
    assert names["real"]["video"].shape == (8, 16, 32, 32, 3)
    shown = capsys.readouterr().out
    assert "f1_half_frame" in shown and "av_align" in shown


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_links_of_a_page_resolve(page):
    text = page.read_text()
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    for link in (one for one in links if not re.match(r"https?:", one)):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{_id(page)} links to {link}"
        if anchor and target.suffix == ".md":
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles}
            assert anchor in anchors, f"{_id(page)} links to {link}"


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "CHANGELOG.md"], ids=_id)
def test_files_named_on_a_page_exist(page):
    """Code spans such as `samplers/ddim.py`, from the root, the page's folder or the package."""
    spans = re.findall(
        r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    )
    names = [
        n for s in spans for n in re.findall(r"(?<![\w./-])\w[\w.]*/[\w./]+\.(?:py|md|json)\b", s)
    ]
    roots = (ROOT, page.parent, ROOT / "mmdisco_jax")
    made = ("runs/", "venv/")  # by a command on the page
    missing = [
        n for n in names if not n.startswith(made) and not any((r / n).exists() for r in roots)
    ]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_python_on_a_page_is_python(page):
    for block in _fences(page.read_text(), "python"):
        ast.parse(block)


def _commands(text: str) -> list[list[str]]:
    """Words of each `mmdisco MODE` or `launch.py MODE` in a shell text, as the shell sees them."""
    text = re.sub(r"\\\n\s*", " ", text)
    for name, value in re.findall(r'^\s*(\w+)="(.*)"$', text, re.MULTILINE):
        text = text.replace(f"${name} ", f"{value} ").replace(f'{name}="{value}"', value)
    commands = re.findall(r"(?:mmdisco|launch\.py) +(?=\w+ .*--config=)([^;\n]*)", text)
    return [shlex.split(command, comments=True) for command in commands]


def _check(words: list[str]) -> None:
    """The mode, the config with its arguments, and every flag exist."""
    mode, *rest = words
    assert mode in TASKS.names() or ":" in mode, mode
    flags = [w.removeprefix("--").partition("=") for w in rest if w.startswith("--")]
    (text,) = (value for name, _, value in flags if name == "config")
    names = [name for name, _, _ in flags if name != "config"]
    assert {name for name in names if not name.startswith("config.")} <= _FLAGS
    if "$" in text:  # an argument that a loop of the shell fills in
        find_config(text)
        return
    config = load_config(text).to_dict()
    for name in names:
        here: Any = config
        for key in name.split(".")[1:]:
            assert key in here, f"--{name} with {text}"
            here = here[key]


def _flags() -> set[str]:
    from absl import flags

    values = flags.FlagValues()
    _define(values)
    return set(values)


_FLAGS = _flags()


@pytest.mark.parametrize("page", [p for p in PAGES if "mmdisco " in p.read_text()], ids=_id)
def test_commands_on_a_page_parse(page):
    commands = [c for block in _fences(page.read_text(), "bash") for c in _commands(block)]
    inline = re.findall(r"`(mmdisco \w+ --config=[^`]*)`", page.read_text())
    for words in [*commands, *(c for one in inline for c in _commands(one))]:
        _check(words)


@pytest.mark.parametrize("path", CONFIGS, ids=_id)
def test_commands_of_a_lab_note_parse(path):
    commands = _commands(_docstring(path))
    assert commands, f"{_id(path)} shows no command"
    for words in commands:
        _check(words)


def test_make_targets_that_are_named_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = re.findall(r"`make ([\w -]+)`", page.read_text())
        assert {t for one in named for t in one.split()} <= targets, _id(page)


def test_every_config_is_in_the_lab_book():
    assert not [p.name for p in CONFIGS if f"({p.name})" not in _lab_book()]


def test_the_lab_book_has_the_recorded_demo(demo):
    assert demo.markdown() in _lab_book()


def test_the_readme_quotes_the_recorded_demo(demo):
    for pattern, measure in (
        (r"F1[^.]*\) from", "f1_half_frame"),
        (r"colour from", "colour_pitch"),
    ):
        quoted = re.search(rf"{pattern} (\d\.\d+) to (\d\.\d+)", _readme())
        assert quoted, pattern
        values = [f"{demo.value(measure, name):.3f}" for name in ("independent", "guided")]
        assert list(quoted.groups()) == values


def test_the_lab_note_of_the_demo_quotes_the_recorded_one(demo):
    measured = _docstring(ROOT / "configs/bounce_demo.py").partition("Measured")[2]
    quoted = re.findall(r"\.\d{3}", measured)
    assert len(quoted) >= 4
    results = [r for name in ("independent", "guided") for r in demo[name]]
    known = {
        f"{number:.3f}"[-4:]
        for result in results
        if result.name in ("f1_half_frame", "colour_pitch")
        for number in (result.value, result.low, result.high)
    }
    assert set(quoted) <= known


def _cells(text: str) -> dict[str, list[str]]:
    """First word of each table row: its other cells, without emphasis."""
    rows = re.findall(r"^\| (\w+)[^|]*\|(.*)\|$", text, re.MULTILINE)
    return {name: [c.strip().strip("*") for c in rest.split("|")] for name, rest in rows}


def test_results_of_the_readme_are_rows_of_the_lab_book():
    results = _cells(_readme().partition("## Results")[2].partition("\n## ")[0])
    main = _cells(_lab_book().partition("### Main table")[2].partition("\n### ")[0])
    results.pop("measure")
    assert len(results) >= 4
    for name, cells in results.items():
        assert cells == main[name][: len(cells)], name


def test_the_lab_note_of_bounce_quotes_the_lab_book():
    measured = _docstring(ROOT / "configs/bounce.py").partition("Measured on")[2]
    main = _lab_book().partition("### Main table")[2].partition("\n### ")[0]
    quoted = re.findall(r"\.\d{3}", measured)
    assert quoted and set(quoted) <= set(re.findall(r"\.\d{3}", main))
