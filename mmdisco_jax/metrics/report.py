# SPDX-License-Identifier: Apache-2.0
"""Report of an evaluation: results, paired differences, what could not be measured; as tables."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mmdisco_jax.metrics.api import Result, finite_or_none

_ARROWS = {"higher": " ↑", "lower": " ↓", "neither": ""}
DIFFERENCES = "Differences of clips of the same number, which share their noise"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """A measure of one set compared with another, clip by clip, with its 95 % interval.

    protocol: of the measure. kind: "-" for the difference left - right, "/" for the ratio.
    n: pairs of clips.
    """

    name: str
    protocol: str
    left: str
    right: str
    kind: str
    value: float
    low: float
    high: float
    n: int

    @property
    def column(self) -> str:
        """Heading, such as "guided - independent"."""
        return f"{self.left} {self.kind} {self.right}"

    @property
    def is_clear(self) -> bool:
        """True if the interval leaves out what equal sets would have, 0 or a ratio of 1."""
        same = 1.0 if self.kind == "/" else 0.0
        return not self.low <= same <= self.high


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unmeasured:
    """What could not be measured: the metric or comparison, on which set ("" for all), and why."""

    name: str
    reason: str
    on: str = ""

    def __str__(self) -> str:
        return f"{self.name}{f' of {self.on}' if self.on else ''}: {self.reason}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report(Mapping[str, tuple[Result, ...]]):
    """Results of one or more sets of clips: a mapping from the set's name to its results.

    `print(report)` shows plain tables. Each cell is a value with its 95 % interval over clips.

    Attributes:
      rows: the same mapping.
      differences: paired comparisons of two sets.
      unmeasured: what was asked for and could not be made, with the reason.
    """

    rows: Mapping[str, tuple[Result, ...]]
    differences: tuple[Difference, ...] = ()
    unmeasured: tuple[Unmeasured, ...] = ()

    def __getitem__(self, name: str) -> tuple[Result, ...]:
        return self.rows[name]

    def __iter__(self):
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def value(self, measure: str, name: str | None = None) -> float:
        """Value of one measure on one set; the name of a single set may be left out.

        Raises:
          KeyError: no such set or measure; the error has those that there are.
        """
        name = next(iter(self.rows)) if name is None and len(self.rows) == 1 else name
        if name is None or name not in self.rows:
            raise KeyError(f"no set {name!r} in this report: choose one of {list(self.rows)}")
        values = {self._label(result): result.value for result in self.rows[name]}
        if measure not in values:
            raise KeyError(f"no measure {measure!r} of {name}: choose one of {list(values)}")
        return values[measure]

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows of the table: one row a measure, one column a set.

        A cell whose value rests on fewer clips than its column says how many.
        """
        numbers = {name: max((r.n for r in row), default=0) for name, row in self.rows.items()}
        table: dict[str, dict[str, str]] = {}
        for name, results in self.rows.items():
            for result in results:
                fewer = "" if result.n == numbers[name] else f", n={result.n}"
                table.setdefault(self._label(result), {})[name] = _cell(result) + fewer
        header = ["measure", *(f"{name} (n={n})" for name, n in numbers.items())]
        body = [[key, *(cells.get(n, "") for n in self.rows)] for key, cells in table.items()]
        return header, body

    def _label(self, result: Result | Difference) -> str:
        """The measure's name, with its protocol where the report has several under that name."""
        protocols = {r.protocol for row in self.rows.values() for r in row if r.name == result.name}
        return result.name if len(protocols) < 2 else f"{result.name} ({result.protocol})"

    def difference_cells(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows of the differences: a row a measure, a column a comparison.

        A star marks an interval that leaves out 0, or 1 for a ratio. Without differences no rows.
        """
        table: dict[str, dict[str, str]] = {}
        for one in self.differences:
            star = " *" if one.is_clear else ""
            table.setdefault(self._label(one), {})[one.column] = _cell(one) + star
        columns = sorted(
            dict.fromkeys(one.column for one in self.differences), key=lambda c: " / " in c
        )
        return ["measure", *columns], [
            [name, *(cells.get(c, "") for c in columns)] for name, cells in table.items()
        ]

    def notes(self) -> list[str]:
        """Sentences below the tables: what values were compared with, and what is not measured."""
        notes: dict[str, list[str]] = {}
        for result in (r for row in self.rows.values() for r in row if r.note):
            names = notes.setdefault(result.note, [])
            label = self._label(result)
            names += [] if label in names else [label]
        said = [f"{', '.join(names)}: {note}" for note, names in notes.items()]
        missing: dict[tuple[str, str], list[str]] = {}
        for one in self.unmeasured:
            missing.setdefault((one.on, one.reason), []).append(one.name)
        return said + [
            f"not measured: {Unmeasured(name=', '.join(names), on=on, reason=reason)}"
            for (on, reason), names in missing.items()
        ]

    def __str__(self) -> str:
        arrows = {self._label(r): _ARROWS[r.better] for row in self.rows.values() for r in row}
        header, body = self.cells()
        texts = _plain(header, [[key + arrows[key], *cells] for key, *cells in body])
        texts.append("value [95 % interval]; ↑ higher is better, ↓ lower is better")
        protocols = dict.fromkeys(r.protocol for row in self.rows.values() for r in row)
        texts.append(f"protocols: {', '.join(protocols)}")
        if self.differences:
            texts += ["", *_plain(*self.difference_cells()), f"{DIFFERENCES} (* clear)"]
        return "\n".join([*texts, *self.notes()])

    def markdown(self) -> str:
        """Markdown tables of `cells` and `difference_cells`, and the notes; ends with a newline."""
        text = _markdown(*self.cells())
        if self.differences:
            text += f"\n{DIFFERENCES}; a star marks a clear one:\n\n"
            text += _markdown(*self.difference_cells())
        notes = "".join(f"- {note}\n" for note in self.notes())
        return text + (f"\n{notes}" if notes else "")

    def terminal(self, note: str = "") -> RenderableType:
        """Rich tables with the notes and `note` below; print with a `rich.console.Console`."""
        shown: list[RenderableType] = [_rich("value [95 % interval]", *self.cells())]
        if self.differences:
            shown.append(_rich(f"{DIFFERENCES} (* clear)", *self.difference_cells()))
        return Group(*shown, *(Text(text) for text in [*self.notes(), note] if text))

    def to_json(self) -> dict[str, list[dict[str, Any]]]:
        """{set: results} of dicts that strict JSON can hold, protocols and intervals included."""
        return {name: [result.to_json() for result in row] for name, row in self.rows.items()}

    def record(self) -> dict[str, Any]:
        """All of the report as strict JSON can hold it; `Report.of_record` reads it back."""
        differences = [dataclasses.asdict(one) for one in self.differences]
        return {
            "rows": self.to_json(),
            "differences": [{k: finite_or_none(v) for k, v in d.items()} for d in differences],
            "unmeasured": [dataclasses.asdict(one) for one in self.unmeasured],
        }

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> "Report":
        """The report of a metrics.json; numbers that were not finite are nan."""
        rows = {
            name: tuple(Result(**_with_nan(row)) for row in some)
            for name, some in record["rows"].items()
        }
        differences = (Difference(**_with_nan(one)) for one in record.get("differences", ()))
        unmeasured = (Unmeasured(**one) for one in record.get("unmeasured", ()))
        return cls(rows=rows, differences=tuple(differences), unmeasured=tuple(unmeasured))


def _with_nan(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {k: float("nan") if v is None else v for k, v in fields.items()}


def _cell(one: Result | Difference) -> str:
    return f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]"


def _plain(header: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    lines = [list(header), *map(list, body)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    texts = (
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )
    return [text.rstrip() for text in texts]


def _markdown(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *body]
    cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "".join("| " + " | ".join(line) + " |\n" for line in cells)


# `Text` is no markup: "[0.1, 0.2]" and a set called "[/red]" are shown as they are.
def _rich(title: str, header: Sequence[str], body: Sequence[Sequence[str]]) -> Table:
    table = Table(title=Text(title))
    for i, name in enumerate(header):
        table.add_column(Text(name), justify="left" if i == 0 else "right", no_wrap=True)
    for line in body:
        table.add_row(*map(Text, line))
    return table
