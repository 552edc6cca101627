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


def test_weighted_statistic_is_centred_on_the_estimate():
    sample = np.random.default_rng(4).normal(0, 1, 200)

    def variance(weights):  # biased down by resampling; the centring must remove that
        return float(
            np.average(sample**2, weights=weights) - np.average(sample, weights=weights) ** 2
        )

    value, low, high = bootstrap.weighted(variance, 200, replicates=2000, seed=0)
    assert value == pytest.approx(sample.var())
    assert (low + high) / 2 == pytest.approx(value, abs=0.02)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(2 / 200), rel=0.2)


def test_no_clip_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        bootstrap.ratio(np.zeros(0), replicates=10, seed=0)
