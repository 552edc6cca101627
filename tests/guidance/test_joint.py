# SPDX-License-Identifier: Apache-2.0
"""Joint guidance against the exact joint model of a correlated Gaussian, and its plan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmdisco_jax.guidance.joint import Plan, PlannedJoint, joint, residual
from mmdisco_jax.process.schedules import linear, scaled_linear
from mmdisco_jax.samplers.ddim import DDIM
from mmdisco_jax.samplers.grids import timesteps
from mmdisco_jax.samplers.noise import initial, keyed, sample_keys
from mmdisco_jax.samplers.sample import sample
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
    world, count = JointGaussian(), 20_000
    keys = sample_keys(1, jnp.arange(count))
    scales = {m: float(strength) for m in ORDER}
    guided = joint(world.marginals, world.log_ratio, world.by_modality, scales)
    grid = timesteps(world.schedules[0], 200)

    def run(x_T):
        return sample(guided, x_T, {m: DDIM() for m in ORDER}, world.by_modality, grid, keyed(keys))

    x = jax.jit(run)(initial(keys, {m: (1,) for m in ORDER}))
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


def _walk(plan: Plan, levels: list[int]):
    """Guidance added at each level by a plan, when the residual there would be the level itself."""
    calls: list[int] = []

    def r(x, t, cond):
        jax.debug.callback(lambda level: calls.append(int(level)), t[0])
        return {"audio": t[:, None].astype(jnp.float32)}

    def denoise(x, t, cond):
        return {"audio": jnp.full_like(x["audio"], 7.0)}

    guided = PlannedJoint(denoise, r, {"audio": 2.0}, plan)
    x = {"audio": jnp.zeros((2, 1))}
    memory, added = guided.init(x), []
    run = jax.jit(guided)
    for step, level in enumerate(levels):
        eps, memory = run(x, jnp.full(2, level), None, jnp.int32(step), memory)
        added.append((float(eps["audio"][0, 0]) - 7.0) / 2.0)
    jax.effects_barrier()
    return added, calls


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
    assert _walk(plan, [90, 70, 50, 30, 10]) == (added, evaluated)


def test_a_trivial_plan_samples_as_joint_does():
    world = UNEQUAL
    keys = sample_keys(3, jnp.arange(4))
    x_T = initial(keys, {m: (1,) for m in ORDER})
    grid = timesteps(world.schedules[0], 10)
    r = residual(world.log_ratio, world.by_modality)
    plain = joint(world.marginals, world.log_ratio, world.by_modality, BOTH)
    planned = PlannedJoint(world.marginals, r, BOTH, Plan())
    a, b = (
        sample(f, x_T, {m: DDIM() for m in ORDER}, world.by_modality, grid, keyed(keys))
        for f in (plain, planned)
    )
    for m in ORDER:
        np.testing.assert_allclose(a[m], b[m], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{"every": 0}, {"interval": (5, 4)}])
def test_an_impossible_plan_is_refused(options):
    with pytest.raises(ValueError, match=r"at least 1|is \[low, high\]"):
        Plan(**options)
