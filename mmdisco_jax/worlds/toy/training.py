# SPDX-License-Identifier: Apache-2.0
"""Training on the toy worlds: fresh pairs at every step, the whole run one `lax.scan`."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mmdisco_jax.discriminator.losses import cross_entropy, denoising
from mmdisco_jax.guidance.joint import residual
from mmdisco_jax.process.noising import TimeSampler, add_noise, draw_noise
from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.training.state import LossFn, init_state, make_step
from mmdisco_jax.types import Array, LogRatioFn, Params
from mmdisco_jax.worlds.toy.mixtures import ORDER, Mixture, exact_bases


class Problem(NamedTuple):
    """Target of the training, and the mixture whose marginals the frozen bases know."""

    world: Mixture
    base: Mixture


def loss(
    weights: Mapping[str, float],
    log_ratio: Callable[[Params], LogRatioFn],
    schedules: dict[str, Schedule],
    batch_size: int,
) -> LossFn:
    """Computes the losses on fresh pairs; `frozen` is a Problem. Weight 0: not computed.

    Fakes come from the bases' own densities: what sampling the bases would give, without its error.
    """
    if not any(weights[name] for name in ("cross_entropy", "denoising")):
        raise ValueError(f"a discriminator needs a loss of positive weight, got {dict(weights)}.")
    levels = TimeSampler(num_timesteps=schedules["audio"].num_timesteps)

    def loss_fn(
        params: Params, frozen: Problem, batch: None, key: Array, step: Array, history: None
    ) -> tuple[Array, dict[str, Array], None]:
        del batch, step
        keys = jax.random.split(key, 6)
        h, t = log_ratio(params), levels(keys[0], batch_size)
        x0 = frozen.world.sample(keys[1], batch_size)
        eps = draw_noise(keys[2], x0)
        x = add_noise(x0, eps, t, schedules)
        total, metrics = jnp.zeros(()), {}
        if weights["cross_entropy"]:
            drawn = {m: frozen.base.sample(keys[3 + i], batch_size)[m] for i, m in enumerate(ORDER)}
            fake = add_noise(drawn, draw_noise(keys[5], drawn), t, schedules)
            metrics["cross_entropy"] = cross_entropy(h(x, t, None), h(fake, t, None))
            total += weights["cross_entropy"] * metrics["cross_entropy"]
        if weights["denoising"]:
            eps_base = exact_bases(frozen.base, schedules)(x, t, None)
            metrics["denoising"], _ = denoising(residual(h, schedules)(x, t, None), eps, eps_base)
            total += weights["denoising"] * metrics["denoising"]
        return total, metrics, history

    return loss_fn


def trainer(
    loss_fn: LossFn,
    init: Callable[[Array], Params],
    optimizer: optax.GradientTransformation,
    *,
    num_steps: int,
    ema_decay: float,
) -> Callable[[Any, Array], Params]:
    """Makes a training function (problem, key) -> averaged parameters.

    It is pure, so that `vmap` trains many problems at once.
    """
    step = make_step(loss_fn, optimizer, ema_decay=ema_decay)

    def run(problem: Any, key: Array) -> Params:
        def body(state, _):
            return step(state, problem, None, key)[0], None

        state = init_state(init(key), optimizer)
        return jax.lax.scan(body, state, None, length=num_steps)[0].ema

    return run
