# SPDX-License-Identifier: Apache-2.0
"""Results as a table: for the terminal and for Markdown."""

from collections.abc import Iterable

from rich.table import Table

from mmdisco_jax.metrics.api import Result

COLUMNS = ("metric", "value", "95 % interval", "n", "protocol")
_ARROWS = {"higher": " ↑", "lower": " ↓", "neither": ""}


def rows(results: Iterable[Result]) -> list[tuple[str, ...]]:
    """One row of strings a result, in `COLUMNS`' order; the arrow says which way is better."""
    return [
        (
            result.name + _ARROWS[result.better],
            _number(result.value),
            f"{_number(result.low)} to {_number(result.high)}",
            str(result.n),
            result.protocol,
        )
        for result in results
    ]


def terminal(results: Iterable[Result], title: str | None = None) -> Table:
    """A rich table; print it with `rich.print` or a `Console`."""
    table = Table(title=title)
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in ("metric", "protocol") else "right")
    for row in rows(results):
        table.add_row(*row)
    return table


def markdown(results: Iterable[Result]) -> str:
    """A Markdown table, ending with a newline."""
    lines = [COLUMNS, ("---", "---:", "---:", "---:", "---"), *rows(results)]
    cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def _number(value: float) -> str:
    """Three decimals below 10, else four significant digits."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"
