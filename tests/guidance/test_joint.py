# SPDX-License-Identifier: Apache-2.0
"""Joint guidance against the exact joint model of a correlated Gaussian, and its plan."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmdisco_jax.guidance.joint import Joint, Plan, joint, residual
from mmdisco_jax.process.schedules import linear, scaled_linear
from mmdisco_jax.samplers.ddim import DDIM
from mmdisco_jax.samplers.levels import Levels, levels
from mmdisco_jax.samplers.sampler import Sampler
from tests.support.gaussian_pair import ORDER, JointGaussian

BOTH = {"audio": 1.0, "video": 1.0}
# Nothing in common between the modalities but the pairing.
UNEQUAL = JointGaussian(
    0.8, (0.5, -1.0), (1.0, 0.4), (linear(), scaled_linear(1000, 0.00085, 0.012))
)


@pytest.mark.parametrize("world", [JointGaussian(), UNEQUAL], ids=["equal", "unequal"])
def test_guided_noise_is_the_joint_model_s(world):
    t = np.repeat([0, 5, 50, 250, 500, 750, 950, 999], 64)
    draws = jax.random.normal(jax.random.key(0), (2, len(t), 1))
    x = {"audio": 1.3 * draws[0], "video": 0.9 * draws[1] - 0.3}
    guided = jax.jit(joint(world.marginals, world.log_ratio, world.by_modality, BOTH))
    got, exact = guided(x, jnp.asarray(t), None), world.joint_float64(x, t)
    for m in ORDER:
        error = np.linalg.norm(got[m] - exact[m]) / np.linalg.norm(exact[m])
        assert error < 1e-6


@pytest.mark.parametrize(
    ("strength", "want", "within"), [(1, 0.805, 0.015), (0, 0.0, 0.03), (-1, -0.80, 0.02)]
)
def test_ddim_recovers_the_correlation(strength, want, within):
    """Standard errors at 20,000 pairs: 0.0025 at 0.8, 0.007 at 0. Pins sign and factor at once."""
    world = JointGaussian()
    scales = {m: float(strength) for m in ORDER}
    guided = joint(world.marginals, world.log_ratio, world.by_modality, scales)
    sampler = Sampler({m: DDIM() for m in ORDER}, world.by_modality, levels(world.by_modality, 200))
    x = sampler.run(guided, {m: (1,) for m in ORDER}, seed=1, indices=range(20_000))
    a, v = (np.asarray(x[m])[:, 0] for m in ORDER)
    assert np.corrcoef(a, v)[0, 1] == pytest.approx(want, abs=within)
    if strength >= 0:  # a wrong sign is not a density with these marginals
        assert a.std() == pytest.approx(1, abs=0.03) and v.std() == pytest.approx(1, abs=0.03)


def test_the_residual_is_each_sample_s_own_gradient_at_any_rank():
    schedules = {"audio": linear(), "video": scaled_linear(1000, 0.00085, 0.012)}
    a = np.random.default_rng(0).standard_normal((3, 4, 2), dtype=np.float32)
    v = np.arange(36, dtype=np.float32).reshape(3, 1, 2, 2, 3)

    def h(x, t, cond):  # d/da = sum(v) + cond; d/dv = sum(a)
        sums = {m: x[m].sum(tuple(range(1, x[m].ndim))) for m in x}
        return sums["audio"] * sums["video"] + cond * sums["audio"]

    t, cond = np.array([10, 500, 900]), np.array([0.0, 1.0, -2.0], np.float32)
    r = jax.jit(residual(h, schedules))({"audio": a, "video": v}, t, cond)
    sigma = {m: np.sqrt(1 - schedules[m].abar[t]) for m in schedules}
    for i in range(3):
        want_a = -sigma["audio"][i] * (v[i].sum() + cond[i])
        np.testing.assert_allclose(r["audio"][i], np.full((4, 2), want_a), rtol=1e-5)
        want_v = -sigma["video"][i] * a[i].sum()
        np.testing.assert_allclose(r["video"][i], np.full((1, 2, 2, 3), want_v), rtol=1e-5)


def test_strength_zero_is_the_identity_and_costs_nothing():
    def forbidden(x, t, cond):
        raise RuntimeError("the discriminator was evaluated")

    world = JointGaussian()
    x = {m: jnp.linspace(-1.0, 1.0, 5)[:, None] for m in ORDER}
    t = jnp.full(5, 500)
    base = world.marginals(x, t)
    nothing = {"audio": 0.0, "video": 0.0}
    same = joint(world.marginals, forbidden, world.by_modality, nothing)(x, t, None)
    half = joint(world.marginals, world.log_ratio, world.by_modality, {"audio": 0.0, "video": 2.0})
    for m in ORDER:
        assert np.array_equal(same[m], base[m])
    assert np.array_equal(half(x, t, None)["audio"], base["audio"])
    assert not np.array_equal(half(x, t, None)["video"], base["video"])


class _Still:
    """Stepper that stays where it is and records how far the guidance moves the noise."""

    staged = learned_variance = False

    def tables(self, schedule, levels):
        return {name: np.full(len(levels), 0.5) for name in ("alpha", "sigma", "abar_next")}

    def init(self, x):
        return jnp.zeros(())

    def step(self, x, eps, row, state, noise):
        return x.at[:, 1:].set(x[:, :-1]).at[:, 0].set((eps[:, 0] - 7.0) / 2.0), state


def _walk(plan: Plan, times: list[int], num_substeps: int = 1):
    """Guidance added at each level by a plan, when the residual there would be the level itself."""
    calls: list[int] = []
    count = len(times) * num_substeps

    def h(x, t, cond):  # -sigma dh/dx is t
        jax.debug.callback(lambda level: calls.append(int(level)), t[0])
        return -(x["audio"][:, 0] * t / linear().sigma(t))

    def denoise(x, t, cond):
        return {"audio": jnp.full_like(x["audio"], 7.0)}

    guided = joint(denoise, h, {"audio": linear()}, {"audio": 2.0}, plan=plan)
    path = Levels(times=np.array(times))
    sampler: Any = Sampler({"audio": _Still()}, {"audio": linear()}, path, num_substeps)
    x_T = {"audio": jnp.zeros((2, count))}
    # Without noising back between substeps, which _Still would not survive.
    tables = sampler.rows(guided, x_T).tables["audio"]
    assert ("renoise_keep" in tables) == (num_substeps > 1)
    x = sampler.run(guided, x_T=x_T, noise=lambda step, draw, modality, shape: jnp.zeros(shape))
    jax.effects_barrier()
    return np.asarray(x["audio"])[0, ::-1], calls


@pytest.mark.parametrize(
    ("plan", "added", "evaluated"),
    [
        (Plan(), [90, 70, 50, 30, 10], [90, 70, 50, 30, 10]),
        (Plan(interval=(30, 70)), [0, 70, 50, 30, 0], [70, 50, 30]),
        (Plan(every=2), [90, 90, 50, 50, 10], [90, 50, 10]),
        # Counted from the first guided step, which is never left without a residual.
        (Plan(interval=(10, 70), every=3), [0, 70, 70, 70, 10], [70, 10]),
    ],
)
def test_a_plan_skips_and_reuses(plan, added, evaluated):
    got, calls = _walk(plan, [90, 70, 50, 30, 10])
    np.testing.assert_allclose(got, added, rtol=1e-5)
    assert calls == evaluated


def test_a_plan_counts_calls_and_so_substeps_too():
    guided = joint(lambda x, t, cond: x, lambda x, t, cond: t, {"a": linear()}, {"a": 1.0},
                   plan=Plan(interval=(20, 80), every=3))  # fmt: skip
    assert isinstance(guided, Joint)
    columns = guided.plan_columns(np.array([90, 70, 50, 30, 10]), 2)
    assert columns["active"].tolist() == [[False] * 2, *[[True] * 2] * 3, [False] * 2]
    assert columns["fresh"].nonzero()[0].tolist() == [1, 2]
    assert columns["fresh"].nonzero()[1].tolist() == [0, 1]


def test_a_trivial_plan_samples_as_joint_does():
    world = UNEQUAL
    sampler = Sampler({m: DDIM() for m in ORDER}, world.by_modality, levels(world.by_modality, 10))
    a, b, c = (
        sampler.run(
            joint(world.marginals, world.log_ratio, world.by_modality, BOTH, plan=plan),
            {m: (1,) for m in ORDER}, seed=3, indices=range(4),
        )
        for plan in (None, Plan(interval=(0, 999)), Plan())
    )  # fmt: skip
    for m in ORDER:
        np.testing.assert_allclose(a[m], b[m], rtol=1e-5, atol=1e-6)
        assert np.array_equal(a[m], c[m])


def test_a_plan_s_interval_holds_outside_of_a_sampler():
    world, t = UNEQUAL, jnp.array([100, 500])
    x = {m: jnp.ones((2, 1)) for m in ORDER}
    plan = Plan(interval=(400, 600), every=2)
    within = joint(world.marginals, world.log_ratio, world.by_modality, BOTH, plan=plan)(x, t, None)
    always = joint(world.marginals, world.log_ratio, world.by_modality, BOTH)(x, t, None)
    for m in ORDER:
        assert within[m][0] == world.marginals(x, t)[m][0] and within[m][1] == always[m][1]


def test_scales_may_be_traced_per_sample_and_partial():
    world = UNEQUAL
    x = {m: jnp.linspace(-1.0, 1.0, 4)[:, None] for m in ORDER}
    t, base = jnp.full(4, 500), world.marginals(x, jnp.full(4, 500))

    def guided(scales):
        return joint(world.marginals, world.log_ratio, world.by_modality, scales)(x, t, None)

    want = guided({"audio": 2.0, "video": 0.5})
    traced = jax.jit(guided)({"audio": 2.0, "video": jnp.float32(0.5)})
    each = guided({"audio": np.array([2.0, 0.0, 2.0, 1.0]), "video": 0.5})
    for m in ORDER:
        np.testing.assert_allclose(traced[m], want[m], rtol=1e-5)
    half = guided({"audio": 1.0, "video": 0.5})
    for row, other in enumerate((want, base, want, half)):
        np.testing.assert_allclose(each["audio"][row], other["audio"][row], rtol=1e-5)
    partial = guided({"audio": 2.0})
    assert np.array_equal(partial["video"], base["video"])
    assert np.array_equal(partial["audio"], want["audio"])
    with pytest.raises(ValueError, match=r"scales of \['vidoe'\], but the modalities are"):
        guided({"vidoe": 1.0})
    with pytest.raises(ValueError, match=r"scale has shape \(3,\)"):
        guided({"audio": jnp.ones(3)})


def test_a_guided_denoiser_is_an_argument_of_a_jitted_function():
    world = UNEQUAL
    x, t = {m: jnp.ones((2, 1)) for m in ORDER}, jnp.full(2, 500)
    guided = joint(world.marginals, world.log_ratio, world.by_modality,
                   {"audio": jnp.float32(2.0), "video": 1.0})  # fmt: skip
    assert jax.tree.leaves(guided) == [2.0]
    count = []

    @jax.jit
    def call(denoise, x):
        count.append(1)
        return denoise(x, t, None)

    for k in (1.0, 3.0):
        other = jax.tree.map(lambda s, k=k: k * s, guided)
        want = other(x, t, None)
        for m, got in call(other, x).items():
            np.testing.assert_allclose(got, want[m], rtol=1e-5)
    assert count == [1]


@pytest.mark.parametrize("options", [{"every": 0}, {"interval": (5, 4)}])
def test_an_impossible_plan_is_refused(options):
    with pytest.raises(ValueError, match=r"at least 1|is \[low, high\]"):
        Plan(**options)
