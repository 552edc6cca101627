# SPDX-License-Identifier: Apache-2.0
"""Intervals against theory, and the vectorised code against a plain loop."""

import numpy as np
import pytest

from mmdisco_jax.metrics import bootstrap


def test_interval_of_a_mean_has_the_width_theory_gives():
    sample = np.random.default_rng(0).normal(3.0, 2.0, 400)
    value, low, high = bootstrap.ratio(sample, replicates=4000, seed=1)
    error = sample.std() / np.sqrt(len(sample))
    assert value == pytest.approx(sample.mean(), rel=1e-12)
    np.testing.assert_allclose(
        [low - value, high - value], [-1.96 * error, 1.96 * error], rtol=0.06
    )


def test_intervals_cover_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(2)
    covered = 0
    for trial in range(300):
        _, low, high = bootstrap.ratio(rng.normal(0, 1, 100), replicates=300, seed=trial)
        covered += low <= 0 <= high
    assert 0.90 <= covered / 300 <= 0.98


def test_ratio_pools_before_it_divides():
    above, below = np.array([1.0, 0.0, 3.0]), np.array([2.0, 0.0, 4.0])
    value, low, high = bootstrap.ratio(above, below, replicates=200, seed=0)
    assert value == pytest.approx(4 / 6)
    by_hand = [
        c @ above / (c @ below) if c @ below else 0.0 for c in bootstrap.resample_counts(3, 200, 0)
    ]
    np.testing.assert_allclose([low, high], np.quantile(by_hand, [0.025, 0.975]))


def test_nothing_to_divide_by_is_the_empty_value():
    assert bootstrap.ratio(np.zeros(3), np.zeros(3), replicates=10, seed=0) == (0.0, 0.0, 0.0)


def test_counts_keep_the_number_of_clips_and_follow_the_seed():
    counts = bootstrap.resample_counts(7, 50, 3)
    assert (counts.sum(1) == 7).all()
    np.testing.assert_array_equal(counts, bootstrap.resample_counts(7, 50, 3))
    assert (counts != bootstrap.resample_counts(7, 50, 4)).any()


def _unit_variance(weights):
    """A statistic with a known second order: the variance of fixed numbers."""
    sample = np.random.default_rng(4).normal(0, 1, 200)
    mean = weights @ sample / weights.sum(1)
    return weights @ sample**2 / weights.sum(1) - mean**2


def test_orders_of_a_quadratic_statistic_are_its_terms():
    found = bootstrap.orders(_unit_variance, (200,), replicates=4000, seed=0)
    sample = np.random.default_rng(4).normal(0, 1, 200)
    influence = (sample - sample.mean()) ** 2 - sample.var()
    assert found.value == pytest.approx(sample.var())
    assert found.first == pytest.approx((influence**2).sum() / 200**2, rel=0.1)
    assert found.bias == pytest.approx(-sample.var() / 200, rel=0.1)  # of a variance
    assert found.second == pytest.approx(2 * (sample.var() / 200) ** 2, rel=0.15)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_halves_are_balanced(n):
    halves = bootstrap._halves(np.random.default_rng(0), 30, n)
    assert (halves.sum(1) == 0).all() and (np.abs(halves).sum(1) == n // 2 * 2).all()
    assert n < 5 or len(np.unique(halves, axis=0)) > 5


def test_a_reported_estimate_moves_the_interval():
    plain = bootstrap.of_distance(_unit_variance, (200,), replicates=50, seed=0)
    moved = bootstrap.of_distance(_unit_variance, (200,), replicates=50, seed=0, unbiased=3.0)
    np.testing.assert_allclose(np.subtract(moved, plain), 3.0 - plain[0])


def test_paired_differences_are_narrower_than_unpaired_ones():
    rng = np.random.default_rng(5)
    shared = rng.normal(0, 1, 200)
    left, right = shared + 0.3 + rng.normal(0, 0.1, 200), shared + rng.normal(0, 0.1, 200)
    value, low, high = bootstrap.paired(
        lambda w: w @ left / 200, lambda w: w @ right / 200, 200, replicates=500, seed=0
    )
    assert value == pytest.approx((left - right).mean()) and low < 0.3 < high
    assert high - low == pytest.approx(2 * 1.96 * (left - right).std() / np.sqrt(200), rel=0.15)


def test_no_clip_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        bootstrap.ratio(np.zeros(0), replicates=10, seed=0)
