# SPDX-License-Identifier: Apache-2.0
"""A training from its first or last checkpoint to its end: what a task needs, put together."""

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
    """What is learnt: loss, key -> initial parameters, frozen parameters, optimizer, averaging.

    `seed` draws the initial parameters, unless `start` gives them, and `seed + 1` all randomness of
    the steps. `num_microbatches` as of `make_step`. `history` is that of the loss before
    the first step.
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
    """Goes on from a checkpoint, or begins, and trains to `spec.num_steps`.

    Args:
      batches: this process's rows of each batch, `__next__`, `get_state` and `set_state`; at its
        beginning.
      restore, free: as `Checkpoints.restore` takes them.
      records: as `loop.fit` takes it.

    Raises:
      CheckpointError, NotFiniteError, StoppedError: see there.
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
