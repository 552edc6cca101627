# SPDX-License-Identifier: Apache-2.0
"""Distances between sets against closed forms, scipy, scikit-learn and explicit sums."""

import numpy as np
import pytest
from scipy.linalg import sqrtm
from sklearn.metrics.pairwise import polynomial_kernel

from mmdisco_jax.metrics import frechet, kernel


def _random_gaussian(seed: int, d: int = 12):
    rng = np.random.default_rng(seed)
    factor = rng.standard_normal((d, d))
    return rng.standard_normal(d), factor @ factor.T / d


def test_frechet_of_diagonal_gaussians_is_the_closed_form():
    got = frechet.frechet_distance(
        np.array([1.0, 0.0]), np.diag([4.0, 9.0]), np.array([0.0, 2.0]), np.diag([1.0, 16.0])
    )
    assert got == pytest.approx((1 + 4) + (2 - 1) ** 2 + (3 - 4) ** 2, rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_frechet_agrees_with_the_matrix_square_root(seed):
    (m1, s1), (m2, s2) = _random_gaussian(seed), _random_gaussian(seed + 100)
    want = ((m1 - m2) ** 2).sum() + np.trace(s1 + s2 - 2 * np.real(sqrtm(s1 @ s2)))
    assert frechet.frechet_distance(m1, s1, m2, s2) == pytest.approx(want, rel=1e-9)
    assert frechet.frechet_distance(m2, s2, m1, s1) == pytest.approx(want, rel=1e-9)


def test_frechet_of_a_set_with_itself_is_zero_even_if_singular():
    features = np.random.default_rng(0).standard_normal((10, 30))  # rank 9 of 30
    gaussian = frechet.gaussian(features)
    assert frechet.frechet_distance(*gaussian, *gaussian) < 1e-6


def test_frechet_of_samples_tends_to_the_truth():
    (m1, s1), (m2, s2) = _random_gaussian(1, 4), _random_gaussian(2, 4)
    rng = np.random.default_rng(0)
    sets = [rng.multivariate_normal(m, s, 40_000) for m, s in ((m1, s1), (m2, s2))]
    got = frechet.frechet_distance(*frechet.gaussian(sets[0]), *frechet.gaussian(sets[1]))
    assert got == pytest.approx(frechet.frechet_distance(m1, s1, m2, s2), rel=0.03)


def test_weighted_moments_are_those_of_the_repeated_rows():
    features = np.random.default_rng(3).standard_normal((6, 3))
    counts = np.array([2, 0, 1, 3, 0, 1])
    mean, covariance = frechet.gaussian(features, counts.astype(float))
    repeated = np.repeat(features, counts, 0)
    np.testing.assert_allclose(mean, repeated.mean(0))
    np.testing.assert_allclose(covariance, np.cov(repeated.T))


def test_frechet_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="do not fit"):
        frechet.frechet_distance(np.zeros(2), np.eye(2), np.zeros(3), np.eye(3))
    with pytest.raises(ValueError, match="n >= 2"):
        frechet.gaussian(np.zeros((1, 3)))


def test_polynomial_kernel_is_scikit_learns_default():
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((5, 7)), rng.standard_normal((4, 7))
    np.testing.assert_allclose(
        kernel.polynomial_kernel(left, right), polynomial_kernel(left, right)
    )


def _explicit(real, fake, of):
    def pair(x, y):
        return of(x[None], y[None])[0, 0]

    def within(rows):
        n = len(rows)
        return sum(pair(rows[i], rows[j]) for i in range(n) for j in range(n) if i != j) / (
            n * (n - 1)
        )

    between = np.mean([[pair(x, y) for y in fake] for x in real])
    return within(real) + within(fake) - 2 * between


def test_discrepancy_is_the_explicit_double_sum():
    rng = np.random.default_rng(1)
    real, fake = rng.standard_normal((6, 3)), rng.standard_normal((5, 3)) + 0.5
    for of in (kernel.polynomial_kernel, kernel.rbf_kernel(kernel.median_bandwidth(real))):
        assert kernel.mmd_squared(real, fake, of)[0] == pytest.approx(_explicit(real, fake, of))


def test_rbf_discrepancy_of_two_normals_is_the_closed_form():
    # For x ~ N(0, 1), y ~ N(m, 1), bandwidth s: E k(x, x') = s / sqrt(s^2 + 2), E k(x, y) the same
    # times exp(-m^2 / (2 (s^2 + 2))).
    rng, m, s = np.random.default_rng(0), 1.5, 1.0
    want = 2 * s / np.sqrt(s**2 + 2) * (1 - np.exp(-(m**2) / (2 * (s**2 + 2))))
    of, got = kernel.rbf_kernel(s), []
    for _ in range(100):
        real, fake = rng.standard_normal((2, 300, 1))
        got.append(kernel.mmd_squared(real, fake + m, of)[0])
    assert abs(np.mean(got) - want) < 4 * np.std(got) / 10
    assert np.std(got) / 10 < 0.02 * want


def test_discrepancy_is_unbiased_between_equal_distributions():
    rng = np.random.default_rng(3)
    values = []
    for _ in range(400):
        left, right = rng.standard_normal((2, 12, 2))
        values.append(kernel.mmd_squared(left, right, kernel.polynomial_kernel)[0])
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(400)
    assert min(values) < 0


def test_weighted_discrepancy_never_compares_a_clip_with_itself():
    rng = np.random.default_rng(4)
    real, fake = rng.standard_normal((2, 8, 2))
    value, weighted = kernel.mmd_squared(real, fake, kernel.polynomial_kernel)
    kept = np.array([1.0, 1, 0, 1, 1, 0, 1, 1])
    assert weighted(np.ones(8)) == value
    assert weighted(kept) == pytest.approx(
        kernel.mmd_squared(real, fake[kept > 0], kernel.polynomial_kernel)[0]
    )


def test_kernel_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="must be positive"):
        kernel.rbf_kernel(kernel.median_bandwidth(np.ones((4, 2))))
    with pytest.raises(ValueError, match="needs 2 of each"):
        kernel.mmd_squared(np.ones((4, 2)), np.ones((1, 2)), kernel.polynomial_kernel)
