# SPDX-License-Identifier: Apache-2.0
"""Training run of a task: initialises or restores the state, shards it, and runs the loop."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from mmdisco_jax import parallel
from mmdisco_jax.training.checkpoints import Checkpoints
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
      start: initial parameters to use instead of `init`.
      num_microbatches: as for `make_step`.
      history: initial history of the loss, or None.
    """

    loss_fn: LossFn
    init: Callable[[Array], Params]
    frozen: Params
    optimizer: optax.GradientTransformation
    ema_decay: float
    seed: int
    start: Params | None = None
    num_microbatches: int = 1
    history: Any = None


def train(
    task: Task,
    batches: Any,
    spec: LoopSpec,
    mesh: Mesh,
    workdir: Path,
    checkpoints: Checkpoints,
    *,
    restore: str = "latest",
    free: Sequence[str] = (),
    records: Callable[[Any, int], list[int]] | None = None,
) -> TrainState:
    """Trains a task to `spec.num_steps`, from a checkpoint if there is one.

    Args:
      batches: iterator over this process's rows of each batch, at its beginning, with `__next__`,
        `get_state` and `set_state`.
      restore, free: passed to `Checkpoints.restore`.
      records: passed to `loop.fit`.

    Raises:
      CheckpointError, NotFiniteError, StoppedError: as `Checkpoints` and `fit` raise them.
    """

    def make(key: Array, start: Params | None) -> TrainState:
        params = task.init(key) if start is None else start
        return init_state(params, task.optimizer, task.history)

    abstract = jax.eval_shape(make, jax.random.key(task.seed), task.start)
    shardings = parallel.tree_shardings(abstract, mesh)
    wanted = parallel.with_shardings(abstract, shardings)
    restored = checkpoints.restore(wanted, which=restore, free=free)
    if restored is None:
        state = jax.jit(make, out_shardings=shardings)(jax.random.key(task.seed), task.start)
    else:
        state, position = restored
        batches.set_state(position)
        print(f"going on from step {int(state.step)} in {workdir}", file=sys.stderr)
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
