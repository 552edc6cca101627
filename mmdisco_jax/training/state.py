# SPDX-License-Identifier: Apache-2.0
"""Training state and the pure train step.

The step is a function of (state, frozen parameters, batch, key) without side effects.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mmdisco_jax.types import Array, Params

Metrics = dict[str, Array]
# (params, frozen, batch, key, step, history) -> (loss, metrics, history). The history is what the
# loss keeps of earlier losses, as loss-aware noise levels do; None for a loss that keeps nothing.
LossFn = Callable[[Params, Params, Any, Array, Array, Any], tuple[Array, Metrics, Any]]


class TrainState(NamedTuple):
    """State of a training.

    Attributes:
      step: int32 [], the number of steps done.
      params: trained parameters.
      ema: exponential moving average of the parameters.
      opt_state: state of the optimizer.
      history: tree of arrays that the loss reads and updates; None for a loss that keeps nothing.
    """

    step: Array
    params: Params
    ema: Params
    opt_state: Any
    history: Any = None


def init_state(
    params: Params, optimizer: optax.GradientTransformation, history: Any = None
) -> TrainState:
    """Makes the state before the first step."""
    ema = jax.tree.map(jnp.array, params)  # a copy, because donated buffers must not be shared
    return TrainState(jnp.zeros((), jnp.int32), params, ema, optimizer.init(params), history)


def make_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    *,
    ema_decay: float,
    num_microbatches: int = 1,
) -> Callable[[TrainState, Params, Any, Array], tuple[TrainState, Metrics]]:
    """Makes a pure train step (state, frozen, batch, key) -> (state, metrics).

    Frozen parameters are a separate argument, so that the optimizer never sees them. Randomness is
    `fold_in(key, step)`, so a resumed run draws the same as an uninterrupted one.

    Args:
      loss_fn: the loss.
      optimizer: an optax transformation.
      ema_decay: decay of the moving average. Step n uses at most (1 + n) / (10 + n), so that the
        average forgets the initial weights early.
      num_microbatches: number of equal parts of the batch over which the gradient is averaged, one
        after the other. Each part has randomness of its own, and the history passes from part to
        part. More parts need less device memory.
    """

    def loss_and_rest(params: Params, *rest: Any) -> tuple[Array, tuple[Metrics, Any]]:
        loss, metrics, history = loss_fn(params, *rest)
        return loss, (metrics, history)

    gradient = jax.value_and_grad(loss_and_rest, has_aux=True)
    if num_microbatches > 1:
        gradient = _accumulated(gradient, num_microbatches)

    def step(state: TrainState, frozen: Params, batch: Any, key: Array):
        step_key = jax.random.fold_in(key, state.step)
        (loss, (metrics, history)), grads = gradient(
            state.params, frozen, batch, step_key, state.step, state.history
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        count = state.step.astype(jnp.float32)
        decay = jnp.minimum(ema_decay, (1 + count) / (10 + count))
        ema = jax.tree.map(lambda a, p: a + (1 - decay) * (p - a), state.ema, params)
        norms = {"grad_norm": optax.tree.norm(grads), "update_norm": optax.tree.norm(updates)}
        metrics = {"loss": loss, **norms, **metrics}
        return TrainState(state.step + 1, params, ema, opt_state, history), metrics

    return step


def _accumulated(gradient: Callable, num_parts: int) -> Callable:
    """Averages loss, metrics and gradient over the parts of a batch, one after the other.

    `gradient` is `jax.value_and_grad` of a loss whose auxiliary value is (metrics, history). A
    metric that is nan in some parts is averaged over the others. The first call raises ValueError
    for a batch that cannot be divided into `num_parts`.
    """

    def mean(params: Params, frozen: Params, batch: Any, key: Array, step: Array, history: Any):
        parts = jax.tree.map(lambda x: _parts(x, num_parts), batch)

        def one(carry: tuple[Params, Any], row: tuple[Array, Any]):
            (total, history), (index, part) = carry, row
            part_key = jax.random.fold_in(key, index)
            (loss, (metrics, history)), grads = gradient(
                params, frozen, part, part_key, step, history
            )
            return (jax.tree.map(jnp.add, total, grads), history), (loss, metrics)

        start = (jax.tree.map(jnp.zeros_like, params), history)
        rows = (jnp.arange(num_parts), parts)
        (total, history), (losses, metrics) = jax.lax.scan(one, start, rows)
        grads = jax.tree.map(lambda g: g / num_parts, total)
        metrics = jax.tree.map(lambda m: jnp.nanmean(m, axis=0), metrics)
        return (losses.mean(), (metrics, history)), grads

    return mean


def _parts(x: Array, num_parts: int) -> Array:
    """Divides [b ...] into [num_parts, b / num_parts, ...]; each part has rows of every device."""
    batch = x.shape[0]
    if batch % num_parts:
        raise ValueError(
            f"a batch of {batch} cannot be cut into {num_parts} microbatches: the batch size must "
            "be a multiple of their number."
        )
    return jnp.moveaxis(x.reshape(batch // num_parts, num_parts, *x.shape[1:]), 1, 0)
