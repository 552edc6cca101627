# SPDX-License-Identifier: Apache-2.0
"""One-to-one matching against an optimal assignment, and F1's border cases."""

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from mmdisco_jax.metrics import matching


@pytest.mark.parametrize("seed", range(40))
def test_as_many_matches_as_an_optimal_assignment(seed):
    rng = np.random.default_rng(seed)
    left, right = (np.sort(rng.uniform(0, 2, rng.integers(1, 9))) for _ in range(2))
    near = np.abs(left[:, None] - right) <= 0.2
    optimal = (maximum_bipartite_matching(csr_array(near.astype(int))) >= 0).sum()
    pairs = matching.match(left, right, 0.2)
    assert len(pairs) == optimal
    assert all(near[i, j] for i, j in pairs)
    assert all(len(set(column)) == len(column) for column in pairs.T)


def test_tolerance_is_inclusive():
    assert len(matching.match(np.array([1.0]), np.array([1.0625]), 1 / 16)) == 1
    assert len(matching.match(np.array([1.0]), np.array([1.0626]), 1 / 16)) == 0


def test_f1_pools_events_over_clips():
    impacts = [np.array([0.5, 1.0]), np.array([0.4]), np.zeros(0)]
    onsets = [np.array([0.51]), np.zeros(0), np.zeros(0)]
    value, low, high = matching.temporal_f1(impacts, onsets, 0.05)
    assert value == pytest.approx(2 * 1 / (3 + 1))
    assert low <= value <= high


def test_f1_is_1_for_itself_and_0_for_nothing():
    instants = [np.array([0.3, 0.9]), np.array([0.7])]
    assert matching.temporal_f1(instants, instants, 0.0) == (1.0, 1.0, 1.0)
    assert matching.temporal_f1([np.zeros(0)], [np.zeros(0)], 0.1)[0] == 0.0


def test_bad_lists_are_errors():
    with pytest.raises(ValueError, match="sort them"):
        matching.match(np.array([1.0, 0.5]), np.array([1.0]), 0.1)
    with pytest.raises(ValueError, match="must not be negative"):
        matching.match(np.array([1.0]), np.array([1.0]), -0.1)
    with pytest.raises(ValueError, match="pair up"):
        matching.temporal_f1([np.zeros(0)], [], 0.1)


@pytest.mark.parametrize("n", [2, 3, 10, 64])
def test_mismatching_moves_every_sound_and_loses_none(n):
    for seed in range(20):
        moved = matching.derangement(n, seed)
        assert (moved != np.arange(n)).all()
        assert sorted(moved) == list(range(n))
    with pytest.raises(ValueError, match="at least 2"):
        matching.derangement(1, 0)
