# SPDX-License-Identifier: Apache-2.0
"""Progress of long work: a bar on a terminal, and a line now and then in a log file."""

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Self

from tqdm import tqdm

SECONDS = 30.0  # between two lines of a log


class Progress:
    """Counts done pieces of work; a context manager, or an iterator over `items`.

    On a terminal this is tqdm's bar. Where standard error goes to a file or a pipe, which a bar
    would fill with carriage returns, it is a line every 30 seconds and one at the end:
    "guided: 120 of 800 steps, 15 %, 0:32 so far, 3:01 to go". Work that is done within the first 30
    seconds has the line at its end only.
    """

    def __init__(
        self,
        items: Iterable[Any] | None = None,
        *,
        total: int | None = None,
        initial: int = 0,
        what: str = "",
        unit: str = "step",
        leave: bool = True,
        hidden: bool = False,
    ):
        """Starts to count.

        Args:
          items: what iterating over this object gives, each of which counts as one.
          total: pieces of work in all; by default the number of items. None where it is not known.
          initial: pieces that were done before.
          what: name of the work, at the beginning of the line.
          unit: of the pieces, in the singular.
          leave: whether the bar stays on the terminal, and the last line is written to a log.
          hidden: show nothing, as in all processes but the first.
        """
        total = len(items) if total is None and hasattr(items, "__len__") else total  # pyright: ignore
        self._items, self._total, self._first, self._done = items, total, initial, initial
        self._what, self._unit, self._leave = what, unit, leave
        self._start = self._told = time.monotonic()
        self._notes = ""
        self._lines = not hidden and not sys.stderr.isatty()
        self._closed = False
        self._bar = tqdm(
            total=total,
            initial=initial,
            desc=what or None,
            unit=unit,
            leave=leave,
            mininterval=1,
            disable=hidden or self._lines,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        with self:
            for item in self._items or ():
                yield item
                self.update()

    def update(self, count: int = 1) -> None:
        """Counts `count` more pieces as done."""
        self._done += count
        self._bar.update(count)
        if self._lines and time.monotonic() - self._told >= SECONDS:
            self._tell()

    def note(self, **values: str) -> None:
        """Shows these values beside the count, such as loss="0.41"."""
        self._notes = "".join(f", {name} {value}" for name, value in values.items())
        self._bar.set_postfix(values, refresh=False)

    def close(self) -> None:
        """Ends the bar; in a log, tells the last count. Nothing at a second call."""
        if self._lines and not self._closed and self._leave and self._done > self._first:
            self._tell()
        self._closed = True
        self._bar.close()

    def _tell(self) -> None:
        self._told = time.monotonic()
        spent, count = self._told - self._start, self._done - self._first
        parts = [f"{self._done} {self._unit}s", f"{tqdm.format_interval(spent)} so far"]
        if self._total:
            share = 100 * self._done / self._total
            parts[:1] = [f"{self._done} of {self._total} {self._unit}s", f"{share:.0f} %"]
            if count > 0 and self._done < self._total:
                left = spent / count * (self._total - self._done)
                parts.append(f"{tqdm.format_interval(left)} to go")
        name = f"{self._what}: " if self._what else ""
        # A log on a full disk is no reason to stop, nor may it hide the error that stops the work.
        with contextlib.suppress(OSError):
            print(f"{name}{', '.join(parts)}{self._notes}", file=sys.stderr, flush=True)
