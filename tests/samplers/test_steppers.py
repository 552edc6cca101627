# SPDX-License-Identifier: Apache-2.0
"""Steppers against exact flows and one another: order of convergence, variance, clipping."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmdisco_jax.process.schedules import Schedule, linear
from mmdisco_jax.samplers.api import Stepper, noise_only
from mmdisco_jax.samplers.ddim import DDIM
from mmdisco_jax.samplers.ddpm import DDPM, VARIANCES
from mmdisco_jax.samplers.dpm_solver import DPMSolverPP2M
from mmdisco_jax.samplers.levels import Levels, levels
from mmdisco_jax.samplers.sampler import Sampler
from tests.support.gaussian_worlds import Gaussian, no_noise


def _even_in_log_snr(num_levels: int) -> Schedule:
    """log(alpha / sigma) from 4 at t = 0 to -4, in equal steps: strided paths need no rounding."""
    log_snr = np.linspace(4, -4, num_levels)
    return Schedule(1 / (1 + np.exp(-2 * log_snr)))


def _flow(world: Gaussian, stepper: Stepper, x_T: np.ndarray, path: Levels) -> np.ndarray:
    """x_T [b 1] carried to its signal."""
    sampler = Sampler({"x": stepper}, {"x": world.schedule}, path)
    return np.asarray(sampler.run(world.eps, x_T={"x": x_T}, noise=no_noise())["x"])


@pytest.mark.parametrize(
    ("stepper", "order"), [(DDIM(), 1), (DPMSolverPP2M(), 2)], ids=["ddim", "2m"]
)
def test_order_of_convergence(stepper, order):
    """Global error on the deterministic flow of a Gaussian, in float64; halving the step."""
    world = Gaussian(_even_in_log_snr(257))
    counts, errors = [32, 64, 128, 256], []
    x_T = np.random.default_rng(0).standard_normal((16, 1))
    exact = world.flow(x_T, 256, 0)
    with jax.enable_x64(True):
        for n in counts:
            path = levels(world.schedule, n + 1, "linspace")
            x = _flow(world, stepper, x_T, path)
            assert x.dtype == np.float64
            errors.append(np.abs(x - exact).max())
    slopes = -np.diff(np.log2(errors))
    assert slopes[-1] == pytest.approx(order, abs=0.2)
    assert errors[-1] < 1e-2**order


def test_the_second_order_solver_needs_fewer_steps():
    world = Gaussian(_even_in_log_snr(129))
    x_T = np.random.default_rng(1).standard_normal((32, 1)).astype(np.float32)
    path = levels(world.schedule, 17, "linspace")
    errors = []
    for stepper in (DDIM(), DPMSolverPP2M()):
        errors.append(np.abs(_flow(world, stepper, x_T, path) - world.flow(x_T, 128, 0)).max())
    assert errors[1] < errors[0] / 4


def test_full_eta_is_the_ddpm_posterior():
    """DDIM at eta 1 and DDPM are two forms of one step (Song et al. 2021, section 4.1)."""
    schedule, path = linear(), levels(linear(), 20)
    rng = np.random.default_rng(0)
    x, eps, z = rng.standard_normal((3, 4, 5), dtype=np.float32)
    ddim, ddpm = DDIM(eta=1.0), DDPM()
    one, other = ddim.tables(schedule, path), ddpm.tables(schedule, path)
    for i in range(len(path)):
        a, _ = ddim.step(x, eps, {k: v[i] for k, v in one.items()}, None, z)
        b, _ = ddpm.step(x, eps, {k: v[i] for k, v in other.items()}, None, z)
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_the_ddpm_posterior_is_bayes_rule():
    """q(x_s | x_t, x_0) from the two Gaussians q(x_s | x_0) and q(x_t | x_s)."""
    schedule, path = linear(), Levels(times=np.array([600, 400]))
    row = {k: v[0] for k, v in DDPM().tables(schedule, path).items()}
    abar_t, abar_s = schedule.abar[600], schedule.abar[400]
    ratio = abar_t / abar_s
    precision = 1 / (1 - abar_s) + ratio / (1 - ratio)
    x_t, x_0 = 0.7, -1.2
    mean = (np.sqrt(abar_s) * x_0 / (1 - abar_s) + np.sqrt(ratio) * x_t / (1 - ratio)) / precision
    eps = (x_t - np.sqrt(abar_t) * x_0) / np.sqrt(1 - abar_t)
    stepper: Any = DDPM()  # in Python's floats, which no device rounds
    quiet, _ = stepper.step(x_t, eps, row, None, 0.0)
    loud, _ = stepper.step(x_t, eps, row, None, 1.0)
    assert quiet == pytest.approx(mean, rel=1e-12)
    assert (loud - quiet) ** 2 == pytest.approx(1 / precision, rel=1e-12)


@pytest.mark.parametrize("stepper", [DDIM(clip=0.5), DDPM(clip=0.5), DPMSolverPP2M(clip=0.5)])
def test_clip_limits_the_predicted_signal(stepper):
    schedule, path = linear(), levels(linear(), 10)

    def wild(x, t, cond):  # the signal it predicts is -30 x
        return {"x": 31.0 * x["x"]}

    x_T = {"x": jax.random.normal(jax.random.key(0), (8, 3))}
    sampler = Sampler({"x": stepper}, {"x": schedule}, path)
    x = sampler.run(wild, x_T=x_T, indices=range(8))["x"]
    assert np.abs(x).max() <= 0.5 + 1e-6


def test_clipping_ddim_keeps_the_signal_and_the_noise_consistent():
    """alpha x0 + sigma eps is x again, with the limited x0 and the noise that goes with it."""
    schedule, path = linear(), Levels(times=np.array([500, 300]))
    stepper: Any = DDIM(clip=0.5)
    row = {k: v[0] for k, v in stepper.tables(schedule, path).items()}
    x, eps = np.array([2.0]), np.array([0.1])  # the predicted signal is far above 0.5
    got, _ = stepper.step(x, eps, row, None, np.zeros(1))
    implied = (x - row["alpha"] * 0.5) / row["sigma"]
    want = row["alpha_next"] * 0.5 + np.sqrt(1 - schedule.abar[300]) * implied
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_variances_are_the_posterior_s_the_step_s_and_between():
    schedule, path = linear(), Levels(times=np.array([600, 400, 0]))
    tables = {v: DDPM(variance=v).tables(schedule, path)["spread"] for v in VARIANCES}
    now, after = schedule.abar[[600, 400]], schedule.abar[[400, 0]]
    beta = 1 - now / after
    np.testing.assert_allclose(tables["fixed_large"], [*np.sqrt(beta), 0], rtol=1e-12)
    posterior = beta * (1 - after) / (1 - now)
    np.testing.assert_allclose(tables["fixed_small"], [*np.sqrt(posterior), 0], rtol=1e-12)

    learned: Any = DDPM(variance="learned_range")
    row = {k: jnp.float32(v[1]) for k, v in learned.tables(schedule, path).items()}
    x = jnp.zeros((1, 3))
    both = jnp.concatenate([x, jnp.array([[-1.0, 0.0, 1.0]])], axis=-1)  # noise, then v
    got, _ = learned.step(x, both, row, None, jnp.ones_like(x))
    low, high = np.sqrt(posterior[1]), np.sqrt(beta[1])
    np.testing.assert_allclose(got[0], [low, np.sqrt(low * high), high], rtol=1e-5)
    with pytest.raises(
        ValueError, match=r"predicts twice the channels of x \(1, 3\), got \(1, 3\)"
    ):
        learned.step(x, x, row, None, x)
    with pytest.raises(ValueError, match="unknown variance 'learned'"):
        DDPM(variance="learned")


def test_a_model_with_a_learned_variance_serves_other_samplers():
    def twice(x, t, cond):
        return {m: jnp.concatenate([v, 7 + v], axis=-1) for m, v in x.items()}

    x = {"x": jnp.ones((2, 3))}
    assert np.array_equal(noise_only(twice)(x, jnp.zeros(2, jnp.int32), None)["x"], x["x"])


@pytest.mark.parametrize("options", [{"eta": 1.5}, {"eta": -0.1}, {"clip": 0.0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=r"must be in 0\.\.1|must be positive or None"):
        DDIM(**options)


@pytest.mark.parametrize("path", [[], [1000, 5], [5, -1], [5, 5], [5, 9], [[5, 3]]])
def test_an_impossible_path_is_refused(path):
    with pytest.raises(ValueError, match=r"must fall strictly|1000, but the schedule ends at 999"):
        DDIM().tables(linear(), Levels(times=np.array(path, np.int32)))
