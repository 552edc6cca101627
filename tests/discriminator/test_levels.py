# SPDX-License-Identifier: Apache-2.0
"""The table by noise level, where the true log-ratio is known: a correlated Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmdisco_jax.discriminator.levels import measure_levels
from mmdisco_jax.guidance.joint import residual
from mmdisco_jax.process.schedules import linear
from mmdisco_jax.worlds.toy.mixtures import ORDER, Mixture, exact_bases, exact_log_ratio

SCHEDULES = {m: linear() for m in ORDER}
RHO, COUNT, T = 0.8, 16_384, 200


def _rows(length: float, **change):
    rho = jnp.full((1,), RHO)
    world = Mixture(jnp.zeros(1), jnp.zeros((1, 2)), jnp.ones((1, 2)), rho)
    exact = exact_log_ratio(world, world, SCHEDULES)
    settings = {"seed": 0, "batch_size": COUNT // 4} | change
    return measure_levels(
        lambda x, t, cond: length * exact(x, t, cond),
        exact_bases(world, SCHEDULES),
        lambda h: residual(h, SCHEDULES),
        SCHEDULES,
        world.sample(jax.random.key(0), COUNT),
        (T,),
        **settings,
    )


def test_the_true_log_ratio_has_best_scale_1_and_the_gain_of_the_posterior():
    (row,) = _rows(1.0)
    alpha2 = float(SCHEDULES["audio"].alpha(jnp.array([T]))[0]) ** 2
    # eps given x_t of one side, and of both: the variance that knowing the other side removes.
    noise = 1 - alpha2
    covariance = np.array([[1.0, alpha2 * RHO], [alpha2 * RHO, 1.0]])
    cross = np.array([np.sqrt(noise), 0.0])
    alone = 1 - noise
    both = 1 - cross @ np.linalg.solve(covariance, cross)
    for m in ORDER:
        np.testing.assert_allclose(row[f"error_{m}"], alone, rtol=0.05)
        np.testing.assert_allclose(row[f"gain_{m}"], both - alone, rtol=0.1)
        np.testing.assert_allclose(row[f"best_scale_{m}"], 1.0, atol=0.05)
    assert row["t"] == T
    assert row["ce"] < np.log(2)
    assert row["accuracy"] > 0.5


def test_a_gradient_twice_too_long_has_best_scale_one_half():
    (row,) = _rows(2.0)
    np.testing.assert_allclose([row[f"best_scale_{m}"] for m in ORDER], 0.5, atol=0.03)


def test_pairs_that_do_not_fill_batches_are_refused():
    with pytest.raises(ValueError, match="batches of 1000 must divide 16384 pairs"):
        _rows(1.0, batch_size=1000)
