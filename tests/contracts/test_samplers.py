# SPDX-License-Identifier: Apache-2.0
"""Contract of every registered sampler."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmdisco_jax.process.schedules import linear
from mmdisco_jax.samplers import SAMPLERS
from mmdisco_jax.samplers.levels import (
    MODEL_TIMES,
    SOLVER_SPACINGS,
    SPACINGS,
    Levels,
    levels,
    respaced_levels,
    solver_levels,
)
from mmdisco_jax.samplers.noise import initial, keyed, sample_keys
from mmdisco_jax.samplers.sampler import Sampler
from tests.support.gaussian_worlds import SCHEDULES, SHAPES, Continuous, Gaussian, network


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


KINDS = {
    **{f"levels {s}": levels(ONE, 200, s) for s in SPACINGS if s != "logsnr"},
    "levels leading above 0": levels(ONE, 200, "leading", offset=4),
    "levels with an end": Levels(times=np.arange(999, 0, -5), end=0),
    "levels with an end above 0": Levels(times=np.arange(999, 199, -4), end=150.5),
    "respaced": respaced_levels(1000, "ddim200"),
    "respaced in sections": respaced_levels(1000, "120,50,30"),
    **{
        f"solver {s}{' to the clean signal' * c}{' told' * (told == 'continuous')}": solver_levels(
            ONE, 200, s, to_clean=c, model_time=told
        )
        for s in SOLVER_SPACINGS
        for c in (False, True)
        for told in MODEL_TIMES
    },
}


def test_exact_on_a_gaussian_on_every_kind_of_path(stepper):
    """Spread of N(0, 0.5^2) in 200 steps, at the level where the path ends.

    Standard error 0.7 %. DDPM's posterior variance is up to 3.5 % short. All paths have one length,
    so that one program samples them all.
    """
    world = Continuous(ONE, mean=0.0, std=0.5)
    samplers = [Sampler({"x": stepper}, {"x": ONE}, path) for path in KINDS.values()]
    x_T = initial(sample_keys(7, jnp.arange(1)), {"x": (10_000,)})
    rows = [sampler.rows(world.eps, x_T) for sampler in samplers]
    rows = [row._replace(t=row.t.astype(jnp.float32)) for row in rows]
    noise = keyed(sample_keys(7, jnp.arange(1)))

    @jax.jit
    @jax.vmap
    def run(rows):
        def body(carry, row):
            return samplers[0].step(world.eps, carry, row, noise), None

        return jax.lax.scan(body, samplers[0].init(world.eps, x_T), rows)[0].x["x"]

    got = run(jax.tree.map(lambda *each: jnp.stack(each), *rows))
    for (name, path), x in zip(KINDS.items(), got, strict=True):
        abar = path.abar(ONE)[1][-1]
        want = np.sqrt(abar * 0.25 + 1 - abar)
        assert np.std(x) == pytest.approx(want, rel=0.045), name
        assert np.mean(x) == pytest.approx(0, abs=0.02), name


def test_a_perfect_prediction_ends_at_its_signal(stepper):
    """If eps always says the same x_0, the last step returns exactly it, whatever came before."""
    target = jnp.array([[0.7, -0.2]])

    def knows(x, t, cond):
        alpha, sigma = linear().alpha(t)[:, None], linear().sigma(t)[:, None]
        return {"x": (x["x"] - alpha * target) / sigma}

    sampler = Sampler({"x": stepper}, {"x": linear()}, levels(linear(), 20))
    x = sampler.run(knows, {"x": (2,)}, indices=range(4))["x"]
    np.testing.assert_allclose(x, np.broadcast_to(target, (4, 2)), atol=2e-5)
