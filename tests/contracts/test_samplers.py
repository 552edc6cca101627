# SPDX-License-Identifier: Apache-2.0
"""What every registered sampler promises, whatever its rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmdisco_jax.process.schedules import linear
from mmdisco_jax.samplers import SAMPLERS
from mmdisco_jax.samplers.grids import timesteps
from mmdisco_jax.samplers.noise import initial, keyed, sample_keys
from mmdisco_jax.samplers.sample import sample
from tests.support.gaussian_worlds import SCHEDULES, SHAPES, Gaussian, network


@pytest.fixture(params=SAMPLERS.names())
def stepper(request):
    return SAMPLERS.get(request.param)()


def _run(stepper, keys):
    steppers, grid = {m: stepper for m in SHAPES}, timesteps(SCHEDULES["audio"], 5, "leading")
    return sample(network(), initial(keys, SHAPES), steppers, SCHEDULES, grid, keyed(keys))


def test_shapes_finite_and_jit_equals_eager(stepper):
    keys = sample_keys(0, jnp.arange(3))
    eager, jitted = _run(stepper, keys), jax.jit(lambda k: _run(stepper, k))(keys)
    for m, shape in SHAPES.items():
        assert eager[m].shape == (3, *shape) and eager[m].dtype == jnp.float32
        assert np.isfinite(eager[m]).all()
        np.testing.assert_allclose(eager[m], jitted[m], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_few_steps_are_finite(stepper, num_steps):
    tables = stepper.tables(linear(), timesteps(linear(), num_steps))
    assert all(v.shape == (num_steps,) and np.isfinite(v).all() for v in tables.values())


def test_exact_on_a_gaussian(stepper):
    """Mean and spread of a Gaussian in 400 steps; standard errors 0.005 and 0.7 %.

    DDPM's posterior variance is that of a known x_0: its spread is 1.6 % short here, 6 % at 100.
    """
    world = Gaussian(linear(), mean=0.3, std=0.5)
    keys = sample_keys(5, jnp.arange(10_000))
    grid = timesteps(linear(), 400)

    def run(x_T):
        return sample(world.eps, x_T, {"x": stepper}, {"x": linear()}, grid, keyed(keys))

    x = np.asarray(jax.jit(run)(initial(keys, {"x": (1,)}))["x"])
    assert x.mean() == pytest.approx(0.3, abs=0.02)
    assert x.std() == pytest.approx(0.5, rel=0.04)


def test_a_perfect_prediction_ends_at_its_signal(stepper):
    """If eps always says the same x_0, the last step returns exactly it, whatever came before."""
    target = jnp.array([[0.7, -0.2]])

    def knows(x, t, cond):
        alpha, sigma = linear().alpha(t)[:, None], linear().sigma(t)[:, None]
        return {"x": (x["x"] - alpha * target) / sigma}

    keys = sample_keys(0, jnp.arange(4))
    x_T = initial(keys, {"x": (2,)})
    grid = timesteps(linear(), 20)
    x = sample(knows, x_T, {"x": stepper}, {"x": linear()}, grid, keyed(keys))["x"]
    np.testing.assert_allclose(x, np.broadcast_to(target, (4, 2)), atol=2e-5)
