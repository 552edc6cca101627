# SPDX-License-Identifier: Apache-2.0
"""Training run of a task: initialises or restores the state, shards it, and runs the loop."""

import dataclasses
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from mmdisco_jax import parallel
from mmdisco_jax.training.checkpoints import LATEST, Checkpoints, Restore
from mmdisco_jax.training.loop import LoopSpec, fit
from mmdisco_jax.training.state import (
    LossFn,
    TrainState,
    init_state,
    make_step,
)
from mmdisco_jax.types import Array, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """Everything that defines a training apart from its data.

    Attributes:
      loss_fn: the loss.
      init: key -> initial parameters.
      frozen: parameters that are not trained.
      optimizer: an optax transformation.
      ema_decay: decay of the moving average of the parameters.
      seed: `seed` draws the initial parameters, `seed + 1` all randomness of the steps.
      start: reads the initial parameters to use instead of `init`, in the shardings that it is
        given; the training takes over their memory.
      num_microbatches: as for `make_step`.
      history: initial history of the loss, or None.
      rows: step -> arrays by name that join this process's rows of the batch of that step (0 is
        the first), read on the host; None for a loss that needs none.
    """

    loss_fn: LossFn
    init: Callable[[Array], Params]
    frozen: Params
    optimizer: optax.GradientTransformation
    ema_decay: float
    seed: int
    start: Callable[[Any], Params] | None = None
    num_microbatches: int = 1
    history: Any = None
    rows: Callable[[int], dict[str, np.ndarray]] | None = None


def train(
    task: Task,
    batches: Any,
    spec: LoopSpec,
    mesh: Mesh,
    workdir: Path,
    checkpoints: Checkpoints,
    *,
    restore: Restore = LATEST,
    records: Callable[[Any, int], list[int]] | None = None,
) -> TrainState:
    """Trains a task to `spec.num_steps`, from a checkpoint if there is one.

    Args:
      batches: iterator over this process's rows of each batch, at its beginning, with `__next__`,
        `get_state` and `set_state`.
      restore: passed to `Checkpoints.restore`.
      records: passed to `loop.fit`.

    Raises:
      CheckpointError, NotFiniteError, StoppedError: as `Checkpoints` and `fit` raise them.
    """

    def make(key: Array) -> TrainState:
        return init_state(task.init(key), task.optimizer, task.history)

    abstract = jax.eval_shape(make, jax.random.key(task.seed))
    shardings = parallel.tree_shardings(abstract, mesh)
    wanted = parallel.with_shardings(abstract, shardings)
    restored = checkpoints.restore(wanted, restore)
    if restored is None:
        state = _start(task, make, shardings)
    else:
        state, position = restored
        batches.set_state(position)
        print(f"going on from step {int(state.step)} in {workdir}", file=sys.stderr)
    if task.rows is not None:
        batches = _Joined(batches, task.rows, int(state.step))
    step_key = jax.jit(jax.random.key, out_shardings=parallel.replicated(mesh))(task.seed + 1)
    return fit(
        state,
        parallel.place(task.frozen, parallel.tree_shardings(task.frozen, mesh)),
        batches,
        make_step(
            task.loss_fn,
            task.optimizer,
            ema_decay=task.ema_decay,
            num_microbatches=task.num_microbatches,
        ),
        step_key,
        spec,
        workdir,
        lambda state: checkpoints.save(int(state.step), state, batches.get_state()),
        place=lambda batch: parallel.shard_batch(batch, mesh),
        records=records,
    )


def _start(task: Task, make: Callable[[Array], TrainState], shardings: TrainState) -> TrainState:
    """The state before the first step, made in its shardings."""
    if task.start is None:
        return jax.jit(make, out_shardings=shardings)(jax.random.key(task.seed))
    params = parallel.place(task.start(shardings.params), shardings.params)

    def rest(params: Params) -> TrainState:
        return init_state(params, task.optimizer, task.history)

    return jax.jit(rest, out_shardings=shardings, donate_argnums=0)(params)


class _Joined:
    """Batches with the rows of `Task.rows`, which are read while the step before runs."""

    def __init__(self, batches: Any, rows: Callable[[int], dict[str, np.ndarray]], step: int):
        self._batches, self._rows, self._step = batches, rows, step
        self._reader = ThreadPoolExecutor(1)
        self._next = self._reader.submit(rows, step)

    def __next__(self) -> dict[str, Any]:
        found = self._next.result()
        self._step += 1
        self._next = self._reader.submit(self._rows, self._step)
        return {**next(self._batches), **found}

    def get_state(self) -> Any:
        return self._batches.get_state()
