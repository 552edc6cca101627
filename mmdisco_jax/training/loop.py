# SPDX-License-Identifier: Apache-2.0
"""Training loop with metrics, checkpoints and a clean stop on SIGTERM or Ctrl-C."""

import dataclasses
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Protocol, Self

import jax
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from mmdisco_jax.checks import require_at_least
from mmdisco_jax.training.metrics_log import MetricsLog
from mmdisco_jax.training.state import TrainState
from mmdisco_jax.types import Array, Params

# If these metrics are finite, the new parameters are finite as well.
_FINITE = ("loss", "grad_norm", "update_norm")
# The device is at most this many steps behind the host, so that it stays busy but a stop is quick.
_AHEAD = 2
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class NotFiniteError(RuntimeError):
    """Raised when a metric is nan or infinite; names step, metric, records and remedy."""


class StoppedError(RuntimeError):
    """Raised when a signal ends training early, after a checkpoint of `step`."""

    def __init__(self, step: int, number: signal.Signals):
        super().__init__(
            f"{number.name} at step {step}: a checkpoint of this step was written. Run the same "
            "command again to resume from there."
        )
        self.step, self.signal = step, number


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopSpec:
    """Number of steps, and steps between log lines and between checkpoints; all >= 1."""

    num_steps: int
    log_every: int
    save_every: int

    def __post_init__(self):
        require_at_least(1, prefix="train.", **dataclasses.asdict(self))


class StopRequest:
    """Context that catches the first SIGTERM or SIGINT; a second one has its usual effect.

    Enter it on the main thread. With several processes JAX's preemption service listens for SIGTERM
    and lets all processes agree on the step to stop at; this class then only asks the service.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if jax.process_count() == 1:
            for number in _STOP_SIGNALS:
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
        """Returns whether to stop after `step`; call it once for every step, in every process."""
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


class Batches(Protocol):
    """Endless iterator of batches whose position can be saved, such as grain's."""

    def __next__(self) -> Any: ...

    def get_state(self) -> Any: ...


def fit(
    state: TrainState,
    frozen: Params,
    batches: Batches,
    step: Callable[[TrainState, Params, Any, Array], tuple[TrainState, dict[str, Array]]],
    key: Array,
    spec: LoopSpec,
    workdir: Path,
    save: Callable[[TrainState], None],
    *,
    place: Callable[[Any], Any] = lambda batch: batch,
    records: Callable[[Any, int], list[int]] | None = None,
) -> TrainState:
    """Trains from `state.step` to `spec.num_steps`, and writes metrics to `workdir`.

    The state is donated and keeps its shardings. The host reads the metrics every `log_every` steps
    and before each checkpoint, so that no checkpoint holds numbers that are not finite.

    Args:
      state, frozen: state to start from, and parameters that are not trained.
      batches: iterator whose next batch is the one after `state.step`.
      step, key: pure train step from `state.make_step`, and the random key of all steps.
      save: writes a checkpoint; called every `save_every` steps, at the end and on a signal.
      place: host batch -> device batch.
      records: (state of `batches`, n) -> indices of the records in the n-th batch from there; used
        to name the records of a batch that gave numbers that are not finite.

    Raises:
      NotFiniteError: the loss or a gradient is nan or infinite.
      StoppedError: SIGTERM or SIGINT arrived; a checkpoint has been started.
    """
    shardings = jax.tree.map(lambda x: x.sharding, state)
    step = jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))
    first, last = int(state.step), spec.num_steps
    window: list[dict[str, Array]] = []
    with StopRequest() as stop, MetricsLog(workdir, first) as log, _bar(first, last) as bar:
        window_start, waited = batches.get_state(), 0.0
        for number in range(first + 1, last + 1):
            asked = time.monotonic()
            batch = next(batches)
            waited += time.monotonic() - asked
            state, metrics = step(state, frozen, place(batch), key)
            window.append(metrics)
            if len(window) > _AHEAD:
                jax.block_until_ready(window[-1 - _AHEAD]["loss"])
            bar.update()
            stopping = stop.reached(number)
            saving = stopping or number % spec.save_every == 0 or number == last
            if saving or number % spec.log_every == 0:
                rows = jax.device_get(window)
                _require_finite(rows, number, window_start, records)
                log.write(number, rows, waited)
                bar.set_postfix(loss=f"{rows[-1]['loss']:.4f}")
                window, window_start, waited = [], batches.get_state(), 0.0
            if saving:
                save(state)
            if stopping and number < last and stop.signal:
                raise StoppedError(number, stop.signal)
    return state


def _require_finite(
    rows: list[dict[str, np.ndarray]],
    last: int,
    window_start: Any,
    records: Callable[[Any, int], list[int]] | None,
) -> None:
    """Raises NotFiniteError for the first bad step of a window that ends with step `last`."""
    for n, metrics in enumerate(rows):
        bad = [name for name in _FINITE if not np.isfinite(metrics[name])]
        if bad:
            met = f" It met the records {records(window_start, n)}." if records else ""
            raise NotFiniteError(
                f"{bad[0]} is {float(metrics[bad[0]])} at step {last - len(rows) + 1 + n}.{met} "
                "Checkpoints of earlier steps are intact. The same command would meet it again: "
                "look at these records, or lower train.learning_rate or train.clip_norm in "
                "another workdir."
            )


def _bar(first: int, last: int) -> tqdm:
    hidden = True if jax.process_index() else None  # None shows it on a terminal only
    return tqdm(total=last, initial=first, unit="step", mininterval=5, disable=hidden)
