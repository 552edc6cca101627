# SPDX-License-Identifier: Apache-2.0
"""What training changes, and the pure step that changes it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mmdisco_jax.types import Array, Params

Metrics = dict[str, Array]
# (params, frozen, batch, key, step) -> (loss, metrics)
LossFn = Callable[[Params, Params, Any, Array, Array], tuple[Array, Metrics]]


class TrainState(NamedTuple):
    """step int32 []; params; their exponential moving average; the optimizer's state."""

    step: Array
    params: Params
    ema: Params
    opt_state: Any


def init_state(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    ema = jax.tree.map(jnp.array, params)  # a copy: donated buffers must not be shared
    return TrainState(jnp.zeros((), jnp.int32), params, ema, optimizer.init(params))


def make_step(
    loss_fn: LossFn, optimizer: optax.GradientTransformation, *, ema_decay: float
) -> Callable[[TrainState, Params, Any, Array], tuple[TrainState, Metrics]]:
    """A pure training step (state, frozen, batch, key) -> (state, metrics).

    Frozen parameters are an argument of their own, so that no optimizer sees them. Randomness is
    `fold_in(key, step)`: a resumed run draws what the uninterrupted one would have drawn. The
    average warms up as (1 + n) / (10 + n), so that it forgets the initial weights early.
    """

    def step(state: TrainState, frozen: Params, batch: Any, key: Array):
        step_key = jax.random.fold_in(key, state.step)
        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, metrics), grads = grad_fn(state.params, frozen, batch, step_key, state.step)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        count = state.step.astype(jnp.float32)
        decay = jnp.minimum(ema_decay, (1 + count) / (10 + count))
        ema = jax.tree.map(lambda a, p: a + (1 - decay) * (p - a), state.ema, params)
        norms = {"grad_norm": optax.global_norm(grads), "update_norm": optax.global_norm(updates)}
        metrics = {"loss": loss, **norms, **metrics}
        return TrainState(state.step + 1, params, ema, opt_state), metrics

    return step
