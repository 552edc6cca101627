# SPDX-License-Identifier: Apache-2.0
"""Intervals of distances hold the mean of the distance in 95 of 100 repetitions, within 3.

The mean is the distance's own, at these numbers of clips, known from other draws or in closed form.
"""

from collections.abc import Callable

import numpy as np
import pytest

from mmdisco_jax.metrics import bootstrap, frechet, kernel

TRIALS = 400
D = 3
BANDWIDTH = 1.5
KERNEL = kernel.rbf_kernel(BANDWIDTH)


def spread(d: int) -> np.ndarray:
    """Standard deviations of d features, those of principal axes: ever smaller ones."""
    return np.geomspace(1.0, 0.3, d)


def draw(
    rng: np.random.Generator, m: int, n: int, apart: float, d: int = D
) -> tuple[np.ndarray, np.ndarray]:
    """Real and generated features: Gaussians, the same for apart = 0."""
    real = rng.standard_normal((m, d)) * spread(d)
    shift = apart / 2 * np.sqrt(D / d)
    return real, (rng.standard_normal((n, d)) * (1 + apart / 4) + shift) * spread(d)


def frechet_of(real: np.ndarray, fake: np.ndarray):
    return None, frechet.weighted_distance(real, fake)


def kernel_of(real: np.ndarray, fake: np.ndarray):
    return kernel.mmd_squared(real, fake, KERNEL)


def coverage(
    of: Callable, m: int, n: int, apart: float, mean: float | None = None, d: int = D
) -> float:
    """Share of trials whose interval holds the mean, which else is taken from 4,000 other draws."""
    rng = np.random.default_rng(11)
    if mean is None:
        ones = np.ones((1, n)), np.ones((1, m))
        mean = float(np.mean([of(*draw(rng, m, n, apart, d))[1](*ones)[0] for _ in range(4000)]))
    hits = 0
    for trial in range(TRIALS):
        estimate, weighted = of(*draw(rng, m, n, apart, d))
        _, low, high = bootstrap.of_distance(
            weighted, (n, m), replicates=100, seed=trial, unbiased=estimate
        )
        hits += low <= mean <= high
    return hits / TRIALS


def one_sided(of: Callable) -> Callable:
    """The distance as if the reference were no sample: only generated clips are resampled."""

    def only(real: np.ndarray, fake: np.ndarray):
        estimate, weighted = of(real, fake)
        return estimate, lambda p, q: weighted(p, np.ones_like(q))

    return only


def true_mmd(apart: float) -> float:
    """Squared discrepancy of the two populations, by the Gaussian integral of the kernel."""
    s, one = BANDWIDTH**2, spread(D)
    two, shift = one * (1 + apart / 4), one * apart / 2

    def mean(variance: np.ndarray, between: np.ndarray) -> float:
        return float(
            np.prod(np.sqrt(s / (s + variance)) * np.exp(-(between**2) / 2 / (s + variance)))
        )

    zero = np.zeros(D)
    within = mean(2 * one**2, zero) + mean(2 * two**2, zero)
    return within - 2 * mean(one**2 + two**2, shift)


@pytest.mark.parametrize(("m", "n", "apart"), [(256, 256, 0.0), (256, 256, 1.0), (64, 256, 1.0)])
def test_frechet_intervals_hold_their_mean(m, n, apart):
    assert 0.92 <= coverage(frechet_of, m, n, apart) <= 0.98


def test_kernel_intervals_hold_the_discrepancy_of_the_populations():
    assert 0.92 <= coverage(kernel_of, 64, 64, 1.0, true_mmd(1.0)) <= 0.98


def test_a_reference_that_is_not_resampled_is_noticed():
    assert coverage(one_sided(kernel_of), 64, 64, 1.0, true_mmd(1.0)) < 0.9


@pytest.mark.slow
@pytest.mark.parametrize("apart", [0.0, 0.5, 2.0])
@pytest.mark.parametrize(("m", "n"), [(256, 256), (64, 256)])
def test_intervals_hold_from_equal_sets_to_distant_ones(m, n, apart):
    assert 0.92 <= coverage(frechet_of, m, n, apart) <= 0.985
    assert 0.92 <= coverage(kernel_of, m, n, apart, true_mmd(apart)) <= 0.985


@pytest.mark.slow
@pytest.mark.parametrize("apart", [0.0, 1.0])
@pytest.mark.parametrize(("m", "least"), [(256, 0.92), (64, 0.91)])
def test_intervals_hold_with_as_many_features_as_a_proxy_has(m, least, apart):
    assert least <= coverage(frechet_of, m, 256, apart, d=25) <= 0.98


def test_paired_differences_of_distances_hold_their_mean():
    """Two sets that share half of their variance, against one reference."""
    n, rng = 64, np.random.default_rng(12)
    ones = np.ones((1, n))

    def statistic():
        real = rng.standard_normal((n, D)) * spread(D)
        noise = rng.standard_normal((n, D))
        left, right = (
            (np.sqrt(0.5) * (noise + rng.standard_normal((n, D))) + shift) * spread(D)
            for shift in (0.6, 1.0)
        )
        one, two = (frechet.weighted_distance(real, x) for x in (left, right))
        return lambda p, q: one(p, q) - two(p, q)

    mean = np.mean([statistic()(ones, ones)[0] for _ in range(2000)])
    hits = 0
    for trial in range(TRIALS):
        _, low, high = bootstrap.of_comparison(statistic(), (n, n), replicates=100, seed=trial)
        hits += low <= mean <= high
    assert 0.92 <= hits / TRIALS <= 0.98
