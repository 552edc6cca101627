# SPDX-License-Identifier: Apache-2.0
"""The toy worlds' closed forms against an independent library and against sampling."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from mmdisco_jax.process.schedules import linear, scaled_linear
from mmdisco_jax.worlds.toy.mixtures import (
    ORDER,
    WORLDS,
    Mixture,
    exact_bases,
    exact_log_ratio,
    log_joint,
    log_marginals,
)

SCHEDULES = {"audio": linear(), "video": scaled_linear(1000, 0.00085, 0.012)}
# Unequal in every way, with a padded component.
MIXTURE = Mixture(
    jnp.log(jnp.array([0.5, 0.3, 0.2, 0.0])),
    jnp.array([[0.0, 1.0], [-1.0, 0.5], [2.0, -1.0], [9.0, 9.0]]),
    jnp.array([[1.0, 0.5], [0.3, 0.7], [0.6, 0.6], [1.0, 1.0]]),
    jnp.array([0.8, -0.5, 0.0, 0.0]),
)
normal_2d: Any = multivariate_normal  # scipy's stub takes a covariance for an int
# log_joint and log_marginals leave out the normal density's constant.
HALF_LOG_2PI = 0.5 * np.log(2 * np.pi)


def _points(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.uniform(-3, 3, (count, 2)), rng.integers(0, 1000, count)


def _densities(points: np.ndarray, t: np.ndarray):
    """log q(a, v) [n] and log p of each modality [n 2], by scipy in double precision."""
    abar = np.stack([SCHEDULES[m].abar[t] for m in ORDER], axis=1)
    log_q, log_p = np.empty(len(t)), np.empty((len(t), 2))
    parts = [np.asarray(x, np.float64)[:3] for x in MIXTURE]
    for i, (point, alpha, variance) in enumerate(zip(points, np.sqrt(abar), 1 - abar, strict=True)):
        joint, marginals = 0.0, np.zeros(2)
        for log_w, mean, std, rho in zip(*parts, strict=True):
            clean = np.outer(std, std) * [[1, rho], [rho, 1]]
            noisy = np.outer(alpha, alpha) * clean + np.diag(variance)
            joint += np.exp(log_w) * normal_2d(alpha * mean, noisy).pdf(point)
            spread = np.sqrt(np.diag(noisy))
            marginals += np.exp(log_w) * norm.pdf(point, alpha * mean, spread)
        log_q[i], log_p[i] = np.log(joint), np.log(marginals)
    return log_q, log_p


def test_densities_and_log_ratio_are_the_mixture_s():
    points, t = _points(40)
    x = {m: jnp.asarray(points[:, i : i + 1], jnp.float32) for i, m in enumerate(ORDER)}
    log_q, log_p = _densities(points, t)
    level = jnp.asarray(t)
    got_q, got_p = jax.jit(
        lambda x: tuple(f(x, level, MIXTURE, SCHEDULES) for f in (log_joint, log_marginals))
    )(x)
    got_q, got_p = got_q - 2 * HALF_LOG_2PI, got_p - HALF_LOG_2PI
    np.testing.assert_allclose(got_q, log_q, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got_p, log_p, rtol=1e-4, atol=1e-4)
    ratio = jax.jit(exact_log_ratio(MIXTURE, MIXTURE, SCHEDULES))(x, level, None)
    np.testing.assert_allclose(ratio, log_q - log_p.sum(1), rtol=1e-4, atol=3e-4)


def test_the_bases_predict_the_marginals_noise():
    """eps_m = -sigma d log p_m / d x_m, the derivative taken by differences of scipy's density."""
    points, t = _points(20)
    x = {m: jnp.asarray(points[:, i : i + 1], jnp.float32) for i, m in enumerate(ORDER)}
    eps = jax.jit(exact_bases(MIXTURE, SCHEDULES))(x, jnp.asarray(t), None)
    step = 1e-5
    up, down = _densities(points + step, t)[1], _densities(points - step, t)[1]
    for i, m in enumerate(ORDER):
        want = -np.sqrt(1 - SCHEDULES[m].abar[t]) * (up - down)[:, i] / (2 * step)
        np.testing.assert_allclose(np.asarray(eps[m])[:, 0], want, rtol=2e-3, atol=2e-4)


def test_samples_have_the_mixture_s_moments():
    x = MIXTURE.sample(jax.random.key(0), 50_000)
    pair = np.concatenate([np.asarray(x[m]) for m in ORDER], axis=1)
    weights = np.exp(np.asarray(MIXTURE.log_weights, np.float64))
    means, stds = np.asarray(MIXTURE.means), np.asarray(MIXTURE.stds)
    mean = weights @ means
    cross = weights @ (np.asarray(MIXTURE.correlations) * stds.prod(1) + means.prod(1))
    np.testing.assert_allclose(pair.mean(0), mean, atol=0.025)
    assert pair.prod(1).mean() == pytest.approx(cross, abs=0.04)
    assert np.abs(pair).max() < 8  # the component of weight 0 is never drawn


@pytest.mark.parametrize("name", WORLDS)
def test_a_world_is_a_density_that_pairs_its_marginals(name):
    world = WORLDS[name]()
    assert float(jnp.exp(world.log_weights).sum()) == pytest.approx(1, abs=1e-5)
    x = world.sample(jax.random.key(0), 4000)
    pair = np.concatenate([np.asarray(x[m]) for m in ORDER], axis=1)
    assert np.isfinite(pair).all() and np.abs(pair).max() < 4.5
    # Mutual information, the mean log-ratio on true pairs: 0 would leave nothing to learn.
    information = exact_log_ratio(world, world, SCHEDULES)(x, jnp.zeros(4000, jnp.int32), None)
    assert float(information.mean()) > 0.25


def test_a_disturbed_base_is_shifted_and_widened():
    base = MIXTURE.disturbed(shift=0.4, widen=0.5)
    a, b = MIXTURE.sample(jax.random.key(1), 50_000), base.sample(jax.random.key(2), 50_000)
    for m in ORDER:
        assert float(b[m].mean() - a[m].mean()) == pytest.approx(0.4, abs=0.03)
        assert float(b[m].var() - a[m].var()) == pytest.approx(0.25, abs=0.06)
    cov = [np.cov(np.asarray(x["audio"])[:, 0], np.asarray(x["video"])[:, 0])[0, 1] for x in (a, b)]
    assert cov[0] == pytest.approx(cov[1], abs=0.04)
