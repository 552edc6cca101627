# SPDX-License-Identifier: Apache-2.0
"""Contract of every registered sampler."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmdisco_jax.process.schedules import linear
from mmdisco_jax.samplers import SAMPLERS
from mmdisco_jax.samplers.levels import Levels, levels, respaced_levels, solver_levels
from mmdisco_jax.samplers.sampler import Sampler
from tests.support.gaussian_worlds import SCHEDULES, SHAPES, Gaussian, network


@pytest.fixture(params=[*SAMPLERS.names(), "tests.support.outside.stepper:Euler"])
def stepper(request):
    return SAMPLERS.get(request.param)()


ONE = linear()
PATHS = {
    "whole": levels(ONE, 5, "leading"),
    "respaced": respaced_levels(1000, "ddim5"),
    "solver": solver_levels(ONE, 5),
    "solver to the clean signal": solver_levels(ONE, 5, "quadratic", to_clean=True),
    "between": solver_levels(ONE, 5, "uniform", model_time="continuous"),
    "whole with an end": Levels(times=np.array([900, 500, 100]), end=50.5),
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_shapes_finite_and_jit_equals_eager(stepper, path):
    sampler, denoise = Sampler({m: stepper for m in SHAPES}, SCHEDULES, path), network()
    own = sampler.run(denoise, SHAPES, indices=range(3))
    jitted = jax.jit(lambda i: sampler.run(denoise, SHAPES, indices=i))(jnp.arange(3))
    for m, shape in SHAPES.items():
        assert own[m].shape == (3, *shape) and own[m].dtype == jnp.float32
        assert np.isfinite(own[m]).all()
        np.testing.assert_allclose(own[m], jitted[m], rtol=1e-5, atol=1e-5)


def test_a_stepper_says_what_it_needs(stepper):
    assert isinstance(stepper.staged, bool) and isinstance(stepper.learned_variance, bool)
    assert isinstance(stepper, type) is False and hash(stepper) == hash(type(stepper)())
    columns = stepper.tables(ONE, PATHS["whole"])
    assert {"alpha", "sigma", "abar_next"} <= columns.keys()
    assert all(column.dtype == np.float64 for column in columns.values())


@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_few_steps_are_finite(stepper, num_steps):
    tables = stepper.tables(linear(), levels(linear(), num_steps))
    assert all(v.shape == (num_steps,) and np.isfinite(v).all() for v in tables.values())


def test_exact_on_a_gaussian(stepper):
    """Mean and spread of a Gaussian in 400 steps; standard errors 0.005 and 0.7 %.

    DDPM's posterior variance is that of a known x_0: its spread is 1.6 % short here, 6 % at 100.
    """
    world = Gaussian(linear(), mean=0.3, std=0.5)
    sampler = Sampler({"x": stepper}, {"x": linear()}, levels(linear(), 400))
    x = np.asarray(sampler.run(world.eps, {"x": (1,)}, seed=5, indices=range(10_000))["x"])
    assert x.mean() == pytest.approx(0.3, abs=0.02)
    assert x.std() == pytest.approx(0.5, rel=0.04)


def test_a_perfect_prediction_ends_at_its_signal(stepper):
    """If eps always says the same x_0, the last step returns exactly it, whatever came before."""
    target = jnp.array([[0.7, -0.2]])

    def knows(x, t, cond):
        alpha, sigma = linear().alpha(t)[:, None], linear().sigma(t)[:, None]
        return {"x": (x["x"] - alpha * target) / sigma}

    sampler = Sampler({"x": stepper}, {"x": linear()}, levels(linear(), 20))
    x = sampler.run(knows, {"x": (2,)}, indices=range(4))["x"]
    np.testing.assert_allclose(x, np.broadcast_to(target, (4, 2)), atol=2e-5)
