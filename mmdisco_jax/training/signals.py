# SPDX-License-Identifier: Apache-2.0
"""A polite stop: SIGTERM or Ctrl-C asks the loop to checkpoint and end, the second one kills."""

import signal
from types import FrameType, TracebackType
from typing import Any, Self

import jax
from jax.experimental import multihost_utils

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """While entered, catches the first SIGTERM or SIGINT; enter it on the main thread.

    Over several processes JAX's own preemption service listens for SIGTERM and agrees with the
    other processes on the step to stop at; this class then only asks it.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if jax.process_count() == 1:
            for number in _SIGNALS:
                self._previous[number] = signal.signal(number, self._caught)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def reached(self, step: int) -> bool:
        """Whether to stop after `step`; ask once for every step, in every process."""
        if jax.process_count() == 1:
            return self.signal is not None
        if multihost_utils.reached_preemption_sync_point(step):
            self.signal = signal.SIGTERM
        return self.signal is not None

    def _caught(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
