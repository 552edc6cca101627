# SPDX-License-Identifier: Apache-2.0
"""The step against closed forms: randomness, moving average, learning rate."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmdisco_jax.training.optimizer import adam
from mmdisco_jax.training.state import init_state, make_step


def test_the_step_follows_its_gradient_and_averages_as_the_docstring_says():
    """With plain descent on loss = a * w and rate 0.1, w falls by 0.1 a each step."""

    def loss_fn(params, frozen, batch, key, step, history):
        noise = jax.random.normal(key)
        return frozen * params["w"], {"noise": noise, "step": step}, history

    optimizer = optax.sgd(0.1)
    state = init_state({"w": jnp.array(2.0)}, optimizer)
    step = jax.jit(make_step(loss_fn, optimizer, ema_decay=0.5))
    key, w, average = jax.random.key(7), 2.0, 2.0
    for n in range(12):
        state, metrics = step(state, jnp.array(3.0), None, key)
        w -= 0.3
        average += (1 - min(0.5, (1 + n) / (10 + n))) * (w - average)
        np.testing.assert_allclose(state.params["w"], w, rtol=1e-5)
        np.testing.assert_allclose(state.ema["w"], average, rtol=1e-5)
        assert metrics["noise"] == jax.random.normal(jax.random.fold_in(key, n))
        assert metrics["step"] == n and state.step == n + 1
        np.testing.assert_allclose(metrics["grad_norm"], 3, rtol=1e-6)
        np.testing.assert_allclose(metrics["update_norm"], 0.3, rtol=1e-5)


def test_adam_warms_up_linearly_and_decays_by_a_cosine():
    """Adam's first steps on a constant gradient have the length of the learning rate."""
    peak, warmup, last, final = 0.01, 4, 20, 0.1
    optimizer = adam(
        learning_rate=peak,
        num_steps=last,
        warmup_steps=warmup,
        final_fraction=final,
        b2=0.99,
        clip_norm=1.0,
    )
    params = jnp.zeros(3)
    state = optimizer.init(params)
    for n in range(last):
        updates, state = optimizer.update(jnp.array([50.0, -50.0, 20.0]), state, params)
        share = (n - warmup) / (last - warmup)
        cosine = final + (1 - final) * 0.5 * (1 + np.cos(np.pi * share))
        rate = peak * (n / warmup if n < warmup else cosine)
        np.testing.assert_allclose(
            np.asarray(updates), rate * np.array([-1, 1, -1]), rtol=1e-4, atol=1e-9
        )


def test_a_warm_up_longer_than_the_training_is_refused():
    with pytest.raises(ValueError, match="warmup_steps must be in"):
        adam(
            learning_rate=1.0,
            num_steps=5,
            warmup_steps=5,
            final_fraction=0.1,
            b2=0.9,
            clip_norm=1.0,
        )


def test_microbatches_give_the_gradient_of_the_whole_batch():
    rows = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)

    def loss_fn(params, frozen, batch, key, step, history):
        error = jnp.square(batch["x"] @ params["w"] - frozen)
        share = jnp.where(batch["x"][0, 0] > 0, jnp.nan, error.mean())
        return error.mean(), {"error": error.mean(), "some": share}, history

    params = {"w": jnp.array([0.5, -1.0, 2.0])}
    found = []
    for parts in (1, 4):
        step = make_step(loss_fn, optax.sgd(0.1), ema_decay=0.5, num_microbatches=parts)
        state = init_state(params, optax.sgd(0.1))
        found.append(jax.jit(step)(state, 1.0, {"x": jnp.asarray(rows)}, jax.random.key(0)))
    (whole, metrics), (cut, cut_metrics) = found
    np.testing.assert_allclose(cut.params["w"], whole.params["w"], rtol=1e-6)
    for name in ("loss", "error", "grad_norm"):
        np.testing.assert_allclose(cut_metrics[name], metrics[name], rtol=1e-6)
    errors = np.square(rows @ np.asarray(params["w"]) - 1.0).reshape(3, 4).mean(axis=0)
    known = [e for e, first in zip(errors, rows[:4, 0], strict=True) if first <= 0]
    assert 0 < len(known) < 4
    np.testing.assert_allclose(cut_metrics["some"], np.mean(known), rtol=1e-5)


def test_microbatches_draw_their_own_noise():
    def loss_fn(params, frozen, batch, key, step, history):
        return params["w"] * jax.random.normal(key), {}, history

    step = make_step(loss_fn, optax.sgd(1.0), ema_decay=0.5, num_microbatches=2)
    state = init_state({"w": jnp.array(0.0)}, optax.sgd(1.0))
    after, _ = step(state, None, jnp.zeros(2), jax.random.key(3))
    key = jax.random.fold_in(jax.random.key(3), 0)
    draws = [jax.random.normal(jax.random.fold_in(key, i)) for i in range(2)]
    np.testing.assert_allclose(after.params["w"], -np.mean(draws), rtol=1e-6)


@pytest.mark.parametrize("parts", [1, 3])
def test_the_history_goes_from_part_to_part_and_step_to_step(parts):
    """The loss counts its calls, and keeps the last row of each part it saw."""

    def loss_fn(params, frozen, batch, key, step, history):
        after = {"calls": history["calls"] + 1, "last": batch["x"][-1]}
        return params["w"] * history["last"], {"seen": history["calls"]}, after

    start = {"calls": jnp.zeros((), jnp.int32), "last": jnp.array(10.0)}
    state = init_state({"w": jnp.array(0.0)}, optax.sgd(1.0), start)
    step = jax.jit(make_step(loss_fn, optax.sgd(1.0), ema_decay=0.5, num_microbatches=parts))
    # A part has every third row: the last rows of the parts are 3, 4 and 5.
    after, metrics = step(state, None, {"x": jnp.arange(6.0)}, jax.random.key(0))
    used = [10.0] if parts == 1 else [10.0, 3.0, 4.0]
    np.testing.assert_allclose(after.params["w"], -np.mean(used), rtol=1e-6)
    assert (int(after.history["calls"]), float(after.history["last"])) == (parts, 5.0)
    assert float(metrics["seen"]) == (parts - 1) / 2
    again, _ = step(after, None, {"x": jnp.arange(6.0)}, jax.random.key(0))
    assert int(again.history["calls"]) == 2 * parts
    forgetful = init_state({"w": jnp.array(0.0)}, optax.sgd(1.0))
    assert forgetful.history is None


def test_a_batch_that_cannot_be_cut_is_named():
    step = make_step(
        lambda p, f, b, k, s, h: (p.sum(), {}, h), optax.sgd(1.0), ema_decay=0.5, num_microbatches=4
    )
    with pytest.raises(ValueError, match="a batch of 6 cannot be cut into 4 microbatches"):
        step(init_state(jnp.zeros(2), optax.sgd(1.0)), None, jnp.zeros((6, 1)), jax.random.key(0))
