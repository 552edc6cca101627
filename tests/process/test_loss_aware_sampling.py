# SPDX-License-Identifier: Apache-2.0
"""Levels by their losses: the history one loss at a time, its distribution, and no bias."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmdisco_jax.process.loss_aware_sampling import History, LossSecondMoment


def _full(losses: np.ndarray) -> History:
    return History(jnp.asarray(losses, jnp.float32), jnp.full(len(losses), losses.shape[1]))


def test_a_batch_enters_the_history_as_its_losses_one_after_the_other():
    sampler, rng = LossSecondMoment(num_timesteps=6, num_losses=4), np.random.default_rng(0)
    history, lists = sampler.init(), [[] for _ in range(6)]
    update, met = jax.jit(sampler.update), set()
    for batch in (5, 1, 16, 16, 16, 16, 16):
        t = rng.integers(0, 6, batch)
        t[: batch // 2] = t[0]  # of one level more than its history holds
        losses = rng.random(batch).astype(np.float32)
        history = update(history, jnp.asarray(t), jnp.asarray(losses))
        for level, loss in zip(t, losses, strict=True):
            lists[level] = [*lists[level], loss][-4:]
        assert history.losses.dtype == jnp.float32 and history.counts.dtype == jnp.int32
        assert history.counts.tolist() == [len(kept) for kept in lists]
        padded = [kept + [0] * (4 - len(kept)) for kept in lists]
        np.testing.assert_array_equal(history.losses, np.array(padded, np.float32))
        met |= {len(kept) for kept in lists}
    assert met == {0, 1, 2, 3, 4}


def test_levels_are_uniform_until_each_is_known_and_then_by_the_root_mean_square():
    losses = np.random.default_rng(1).random((5, 10)) * np.arange(1, 6)[:, None]
    sampler, history = LossSecondMoment(num_timesteps=5), _full(losses)
    not_yet = history._replace(counts=history.counts.at[3].set(9))
    probabilities = jax.jit(sampler.probabilities)
    np.testing.assert_allclose(probabilities(not_yet), 0.2, rtol=1e-6)
    size = np.sqrt(np.mean(losses**2, axis=1))
    wanted = 0.999 * size / size.sum() + 0.001 / 5
    np.testing.assert_allclose(probabilities(history), wanted, rtol=1e-5)


def test_draws_follow_the_distribution_and_weights_undo_it():
    losses = np.tile(np.array([[0.1], [1.0], [3.0], [0.4]]), 10)
    sampler, history = LossSecondMoment(num_timesteps=4, uniform=0.2), _full(losses)
    t, weights = map(np.asarray, jax.jit(sampler.draw, static_argnums=2)(
        history, jax.random.key(2), 40_000
    ))  # fmt: skip
    p = 0.8 * losses[:, 0] / 4.5 + 0.05
    assert t.dtype == np.int32
    np.testing.assert_allclose(np.bincount(t) / 40_000, p, atol=0.01)
    np.testing.assert_allclose(weights, 1 / (4 * p[t]), rtol=1e-5)
    values = np.array([7.0, -2.0, 0.5, 4.0])
    assert np.mean(weights * values[t]) == pytest.approx(values.mean(), abs=0.1)


def test_the_gradient_of_a_loss_does_not_reach_the_history():
    sampler = LossSecondMoment(num_timesteps=2, num_losses=2)

    def kept(losses):
        return sampler.update(sampler.init(), jnp.array([0, 1]), losses).losses.sum()

    assert not np.any(jax.jit(jax.grad(kept))(np.ones(2, np.float32)))


@pytest.mark.parametrize(
    "options", [{"num_timesteps": 0}, {"num_losses": 0}, {"uniform": 0.0}, {"uniform": 1.5}]
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=r"num_losses >= 1 and a uniform share in \(0, 1\], got"):
        LossSecondMoment(**{"num_timesteps": 3, **options})
