# SPDX-License-Identifier: Apache-2.0
"""DPM-Solvers: order of convergence, official order lists, limits, and where ours differ."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmdisco_jax.process.schedules import linear
from mmdisco_jax.samplers import exponential
from mmdisco_jax.samplers.ddim import DDIM
from mmdisco_jax.samplers.dpm_solver import DPMSolver, DPMSolverPP2M, orders_of
from mmdisco_jax.samplers.levels import Levels, levels, solver_levels
from mmdisco_jax.samplers.noise import initial, sample_keys
from mmdisco_jax.samplers.sampler import Sampler
from tests.support.gaussian_worlds import SCHEDULES, SHAPES, Continuous, network, no_noise

WORLD = Continuous(linear())
_BOTH = ("singlestep", "multistep")
X_T = np.random.default_rng(0).standard_normal((16, 1))


def _error(solver, num_evaluations, spacing="logsnr", stop=150):
    """Of the flow from level T - 1 to `stop`, in float64.

    At level 0 the predictions no longer change, and there a third-order method's first error term,
    an integral of a derivative, vanishes: it would look to be of fourth order.
    """
    if stop:
        first, last = -0.5 * np.log(1 / WORLD.schedule.abar[[-1, stop]] - 1)
        nodes = WORLD.schedule.level_between(np.linspace(first, last, num_evaluations + 1))
        path = Levels(times=nodes[:-1], model_times=nodes[:-1], end=nodes[-1])
    else:
        path = solver_levels(WORLD.schedule, num_evaluations, spacing, model_time="continuous")
    with jax.enable_x64(True):
        sampler = Sampler({"x": solver}, {"x": WORLD.schedule}, path)
        x = sampler.run(WORLD.eps, x_T={"x": X_T}, noise=no_noise())["x"]
    assert x.dtype == np.float64
    return np.abs(np.asarray(x) - WORLD.flow(X_T, stop=stop)).max()


@pytest.mark.parametrize("prediction", exponential.PREDICTIONS)
@pytest.mark.parametrize(
    ("order", "method", "variant"),
    [
        (1, "singlestep", "taylor"),
        *[(2, method, variant) for method in _BOTH for variant in exponential.VARIANTS],
        *[(3, "singlestep", variant) for variant in exponential.VARIANTS],
        (3, "multistep", "taylor"),
    ],
)
def test_order_of_convergence(prediction, variant, method, order):
    """With 2 of 3 calls left, a single step of order 2 at the end does not lower order 3."""
    solver = DPMSolver(prediction=prediction, variant=variant, method=method, order=order)
    # Powers of two times three, less one: [3] * k + [2] for order 3, even blocks for order 2.
    counts = [96 - (order == 3), 192 - (order == 3)]
    errors = [_error(solver, n) for n in counts]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("spacing", ["uniform", "quadratic"])
def test_other_spacings_converge_too(spacing):
    solver = DPMSolver(order=3, method="singlestep_fixed")
    few, many = (_error(solver, n, spacing, stop=0) for n in (60, 480))
    assert many < few / 8**2 and many < 1e-3  # measured: 150 and 550 times


def test_the_official_third_order_multistep_is_of_second_order(monkeypatch):
    """It multiplies the integral of u^2 / 2 by D2 = (D1_0 - D1_1) / (r0 + r1), which is half of the
    second derivative. Measured from 96 to 192 calls: order 2.08, and 3.04 with the factor 2."""

    def official(scale, z, nodes, variant, xp):
        if len(nodes) < 2:
            return exact(scale, z, nodes, variant, xp)
        r0, r1 = -nodes[0], nodes[0] - nodes[1]
        first, second, third = exponential.phis(z, xp)
        newest = np.array([1, -1, 0]) / r0, np.array([0, 1, -1]) / r1  # D1_0 and D1_1
        slope = newest[0] + r0 / (r0 + r1) * (newest[0] - newest[1])
        curve = (newest[0] - newest[1]) / (r0 + r1)
        return tuple(-scale * (first * np.array([1, 0, 0]) + second * slope + third * curve))

    exact = exponential.weights
    solver = DPMSolver(prediction="eps", order=3, method="multistep")
    ours = _error(solver, 192)
    monkeypatch.setattr(exponential, "weights", official)
    errors = [_error(solver, n) for n in (96, 192)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.2)
    assert errors[1] > 10 * ours


def test_the_first_order_noise_step_is_ddim_and_not_the_official_audio_formula():
    """On equal inputs official video is right and official audio uses the data formula."""
    path = Levels(times=np.array([599, 300]))
    row = {k: v[0] for k, v in DPMSolver(prediction="eps", order=1).tables(linear(), path).items()}
    ddim = {k: v[0] for k, v in DDIM().tables(linear(), path).items()}
    x, eps = 1.3, -0.7
    got = row["from_start"] * x + row["now"] * eps
    want = ddim["alpha_next"] * (x - ddim["sigma"] * eps) / ddim["alpha"] + ddim["direction"] * eps
    assert got == pytest.approx(want, rel=1e-12)
    abar = linear().abar[path.times]
    alpha, sigma = np.sqrt(abar), np.sqrt(1 - abar)
    h = np.log(alpha[1] / sigma[1] * sigma[0] / alpha[0])
    official_audio = sigma[1] / sigma[0] * x - alpha[1] * np.expm1(h) * eps
    assert abs(official_audio - want) > 0.5


@pytest.mark.parametrize("prediction", exponential.PREDICTIONS)
@pytest.mark.parametrize("method", _BOTH)
def test_modalities_do_not_mix_and_a_batch_of_one_works(prediction, method):
    """Official code fails here: third-order multistep gives audio the rank of video, third-order
    "taylor" steps need an undefined name and video's derivatives, a batch of one has no `shape`."""
    solver = DPMSolver(order=3, prediction=prediction, variant="taylor", method=method)
    path = solver_levels(WORLD.schedule, 6)
    both = initial(sample_keys(0, jnp.arange(3)), SHAPES)

    def run(x):
        sampler = Sampler({m: solver for m in x}, {m: WORLD.schedule for m in x}, path)
        return sampler.run(WORLD.eps, x_T=x, noise=no_noise())

    together = run(both)
    for m, x in both.items():
        assert together[m].shape == x.shape
        alone = run({m: x[1:2]})[m][0]
        np.testing.assert_allclose(together[m][1], alone, rtol=1e-5, atol=1e-5)


def test_a_sample_does_not_depend_on_its_batch():
    solver = DPMSolver(order=3, clip=1.0, quantile=0.9)  # thresholds are per sample
    path = solver_levels(SCHEDULES["audio"], 8)

    def run(indices):
        sampler = Sampler({m: solver for m in SHAPES}, SCHEDULES, path)
        return sampler.run(network(), SHAPES, seed=11, indices=indices, noise=no_noise())

    batch, alone = run(range(6)), run([4])
    for m in SHAPES:
        np.testing.assert_allclose(batch[m][4], alone[m][0], rtol=1e-5, atol=1e-5)


def test_the_official_order_lists():
    assert orders_of(20, 3) == [3] * 6 + [2]
    assert orders_of(19, 3) == [3] * 6 + [1]
    assert orders_of(18, 3) == [3] * 5 + [2, 1]
    assert orders_of(7, 2) == [2, 2, 2, 1] and orders_of(6, 2) == [2, 2, 2]
    assert orders_of(3, 1) == [1, 1, 1] and orders_of(0, 3) == []
    assert all(sum(orders_of(n, k)) == n for n in range(30) for k in (1, 2, 3))
    assert orders_of(6, 3, fixed=True) == [3, 3]
    with pytest.raises(ValueError, match="20 calls are no multiple of order 3"):
        orders_of(20, 3, fixed=True)


def test_multistep_order_2_is_the_2m_solver():
    path = levels(linear(), 12, "logsnr")
    x_T = {"x": jnp.asarray(X_T, jnp.float32)}
    a, b = (
        Sampler({"x": solver}, {"x": linear()}, path).run(WORLD.eps, x_T=x_T, noise=no_noise())["x"]
        for solver in (DPMSolver(order=2, method="multistep"), DPMSolverPP2M())
    )
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("prediction", exponential.PREDICTIONS)
def test_dynamic_thresholding_scales_each_sample_and_modality_by_itself(prediction):
    """One step to the clean signal returns the limited signal: against a plain loop."""
    rng = np.random.default_rng(1)
    signal = {"audio": 3 * rng.standard_normal((3, 50, 1)), "video": rng.uniform(-1, 1, (3, 4, 5))}
    signal["video"][1, 0] = 7.0
    abar = linear().abar[400]
    x = {
        m: jnp.asarray(np.sqrt(abar) * v + np.sqrt(1 - abar), jnp.float32)
        for m, v in signal.items()
    }
    solver = DPMSolver(prediction=prediction, clip=1.0, quantile=0.8)
    path = Levels(times=np.array([400]))
    sampler = Sampler({m: solver for m in x}, {m: linear() for m in x}, path)
    ones = lambda x, t, cond: {m: jnp.ones_like(v) for m, v in x.items()}  # noqa: E731
    got = sampler.run(ones, x_T=x, noise=no_noise())
    for m, v in signal.items():
        for i in range(3):
            scale = max(np.quantile(np.abs(v[i]), 0.8), 1.0)
            want = np.clip(v[i], -scale, scale) / scale
            np.testing.assert_allclose(got[m][i], want, rtol=1e-4, atol=1e-4)
    assert np.abs(got["video"][0] - signal["video"][0]).max() < 1e-4  # inside the limit: untouched


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": 4}, "order is 4: choose one of 1, 2, 3"),
        ({"prediction": "v"}, "prediction is 'v': choose one of x0, eps"),
        ({"method": "adaptive"}, "method is 'adaptive': choose one of singlestep"),
        ({"variant": "heun"}, "variant is 'heun'"),
        ({"quantile": 0.995}, "give a clip"),
        ({"quantile": 1.5, "clip": 1.0}, r"in \(0, 1\], got 1.5"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DPMSolver(**options)


def test_a_row_of_several_is_not_repeated():
    with pytest.raises(ValueError, match=r"num_substeps is 2, but DPMSolver.* in several rows"):
        Sampler({"x": DPMSolver()}, {"x": linear()}, levels(linear(), 4), num_substeps=2)
