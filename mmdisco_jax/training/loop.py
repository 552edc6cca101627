# SPDX-License-Identifier: Apache-2.0
"""The training loop: batches in, state out, with logs and checkpoints on the way."""

import dataclasses
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from tqdm import tqdm

from mmdisco_jax.training.metrics_log import MetricsLog
from mmdisco_jax.training.signals import StopRequest
from mmdisco_jax.training.state import TrainState
from mmdisco_jax.types import Array, Params

# If these are finite, so are the parameters that the step leaves behind.
_FINITE = ("loss", "grad_norm", "update_norm")
# Steps handed to the device ahead of the host: enough to keep it busy, few enough to stop soon.
_AHEAD = 2


class NotFiniteError(RuntimeError):
    """Training produced a value that is not finite; names step, metric, records and remedy."""


class StoppedError(RuntimeError):
    """A signal ended training early, after a checkpoint. Attributes: step, signal."""

    def __init__(self, step: int, number: signal.Signals):
        super().__init__(
            f"{number.name} at step {step}: a checkpoint of this step was written. Run the same "
            "command again to go on from there."
        )
        self.step, self.signal = step, number


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopSpec:
    """Steps in all, between lines of the log, and between checkpoints; all >= 1."""

    num_steps: int
    log_every: int
    save_every: int

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if value < 1:
                raise ValueError(f"train.{name} is {value}, but must be >= 1.")


class Batches(Protocol):
    """An endless iterator of batches that can tell where it is, such as grain's."""

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
    """Runs `step` from `state.step` until `spec.num_steps`, and leaves metrics in `workdir`.

    The state is donated and keeps its shardings. The host reads metrics every `log_every` steps
    and before each checkpoint, so that no checkpoint holds numbers that are not finite.

    Args:
      batches: the batch after `state.step` comes first.
      step: pure, as `state.make_step` makes it.
      save: writes a checkpoint; called every `save_every` steps, at the end and on a signal.
      place: host batch -> device batch.
      records: (state of `batches`, n) -> indices of the records in the n-th batch from there,
        to name those of a batch that broke the training.

    Raises:
      NotFiniteError: the loss or a gradient is nan or infinite.
      StoppedError: SIGTERM or SIGINT, once the checkpoint is started.
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
    """Raises NotFiniteError for the first bad step of a window that ends at step `last`."""
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
    hidden = True if jax.process_index() else None  # None: shown on a terminal only
    return tqdm(total=last, initial=first, unit="step", mininterval=5, disable=hidden)
