# SPDX-License-Identifier: Apache-2.0
"""Evaluation of sets of clips by named metrics, as a report that prints, tabulates and stores."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

import numpy as np
from rich.table import Table
from tqdm import tqdm

from mmdisco_jax.io import to_int16
from mmdisco_jax.metrics import METRICS
from mmdisco_jax.metrics.api import Batch, Context, Result

ONE_SET = "clips"  # what a set without a name is called
_ARROWS = {"higher": " ↑", "lower": " ↓", "neither": ""}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report(Mapping[str, tuple[Result, ...]]):
    """Results of one or more sets of clips: a mapping from the set's name to its results.

    `print(report)` shows a plain table. Each cell of a table is a value with its 95 % bootstrap
    interval over clips.
    """

    rows: Mapping[str, tuple[Result, ...]]

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
        values = {result.name: result.value for result in self.rows[name]}
        if measure not in values:
            raise KeyError(f"no measure {measure!r} of {name}: choose one of {list(values)}")
        return values[measure]

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows of the table: one row a measure, one column a set."""
        table: dict[str, dict[str, str]] = {}
        for name, results in self.rows.items():
            for result in results:
                cell = f"{result.value:.3f} [{result.low:.3f}, {result.high:.3f}]"
                table.setdefault(result.name, {})[name] = cell
        header = ["measure", *(f"{name} (n={row[0].n})" for name, row in self.rows.items())]
        body = [[key, *(cells.get(n, "") for n in self.rows)] for key, cells in table.items()]
        return header, body

    def __str__(self) -> str:
        header, body = self.cells()
        arrows = {r.name: _ARROWS[r.better] for row in self.rows.values() for r in row}
        lines = [header, *([key + arrows[key], *cells] for key, *cells in body)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        lines.insert(1, ["-" * width for width in widths])
        texts = (
            "  ".join(
                cell.rjust(width) if i else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        )
        protocols = dict.fromkeys(r.protocol for row in self.rows.values() for r in row)
        note = "value [95 % interval]; ↑ higher is better, ↓ lower is better"
        return "\n".join([*(t.rstrip() for t in texts), note, f"protocols: {', '.join(protocols)}"])

    def markdown(self) -> str:
        """Markdown table of `cells`, ending with a newline."""
        header, body = self.cells()
        lines = [header, ["---", *["---:"] * (len(header) - 1)], *body]
        cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
        return "".join("| " + " | ".join(line) + " |\n" for line in cells)

    def terminal(self, note: str = "") -> Table:
        """Rich table of `cells`, with `note` below it; print it with a `rich.console.Console`."""
        header, body = self.cells()
        table = Table(title="value [95 % interval]", caption=note)
        for i, name in enumerate(header):
            table.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
        for line in body:
            table.add_row(*line)
        return table

    def to_json(self) -> dict[str, list[dict[str, Any]]]:
        """{set: results} of dicts that strict JSON can hold, protocols and intervals included."""
        return {name: [result.to_json() for result in row] for name, row in self.rows.items()}


def evaluate(
    clips: Batch | Mapping[str, Batch],
    *,
    metrics: Iterable[str],
    fps: float,
    sample_rate_hz: int,
    reference: Batch | None = None,
    weights: Mapping[str, str] = MappingProxyType({}),
    prompts: Sequence[str] | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> Report:
    """Measures one or several sets of clips.

    Args:
      clips: one set, {"video": uint8 [n f h w 3], "audio": int16 or float in [-1, 1] [n samples]},
        or several by name, {name: set}.
      metrics: names of the registry `METRICS`, or "package.module:attribute" of your own factory
        `Context -> Metric`.
      fps: frames a second.
      sample_rate_hz: samples a second.
      reference: a set of real clips, for the metrics that compare two sets.
      weights: paths of weight files by metric, for the metrics that are networks.
      prompts: the text of each clip, for the metrics that read it.
      replicates, seed: of the bootstrap over clips.

    Returns:
      The report; a mapping from the name of each set ("clips" for one without a name) to its
      results.

    Raises:
      ValueError: an unknown metric, clips of another form, or a metric that cannot be made on these
        clips.
    """
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    if not names:
        raise ValueError(f"no metrics were named: choose some of {', '.join(METRICS.names())}.")
    context = Context(
        fps=fps,
        sample_rate_hz=sample_rate_hz,
        reference=None if reference is None else _whole(reference, "reference"),
        weights=weights,
        prompts=prompts,
        replicates=replicates,
        seed=seed,
    )
    made = [METRICS.get(name)(context) for name in names]
    sets = _sets(clips)
    rows = {}
    for name, one in tqdm(sets.items(), unit="set", leave=False, disable=len(sets) == 1):
        batch = _whole(one, name)
        results = [m.compute(m.update(m.init(), batch)) for m in made]
        rows[name] = tuple(result for some in results for result in some)
    return Report(rows=rows)


def _sets(clips: Batch | Mapping[str, Batch]) -> dict[str, Batch]:
    if not clips:
        raise ValueError("there are no clips: pass a set with 'video' and 'audio', or some by name")
    if all(isinstance(one, Mapping) for one in clips.values()):
        return dict(cast(Mapping[str, Batch], clips))
    return {ONE_SET: cast(Batch, clips)}


def _whole(clips: Batch, name: str) -> Batch:
    """The set on the host with int16 sound; metrics check the rest."""
    arrays = {key: np.asarray(value) for key, value in clips.items()}
    if "audio" in arrays and arrays["audio"].dtype != np.int16:
        try:
            arrays["audio"] = to_int16(arrays["audio"])
        except ValueError as error:
            raise ValueError(f"the audio of {name!r}: {error}") from error
    return arrays
