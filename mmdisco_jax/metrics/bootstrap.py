# SPDX-License-Identifier: Apache-2.0
"""Bootstrap intervals over clips (Efron, 1979): seeded, vectorised, in float64."""

from collections.abc import Callable

import numpy as np

LEVEL = 0.95


def resample_counts(n: int, replicates: int, seed: int) -> np.ndarray:
    """Counts of each of `n` clips in each bootstrap replicate: float64 [replicates, n]."""
    if n < 1:
        raise ValueError(f"cannot resample {n} clips: a bootstrap needs at least one")
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=replicates)
    return draws.astype(np.float64)


def percentile_interval(replicates: np.ndarray) -> tuple[float, float]:
    """Bounds of the central 95 % of the replicates' values."""
    low, high = np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def ratio(
    numerator: np.ndarray,
    denominator: np.ndarray | None = None,
    *,
    replicates: int,
    seed: int,
    empty: float = 0.0,
) -> tuple[float, float, float]:
    """Ratio of two sums over clips with its interval, as (value, low, high).

    Each is [n], one number a clip; without a denominator the value is the mean. A replicate (or the
    whole set) whose denominator is zero counts as `empty`.
    """
    numerator = np.asarray(numerator, np.float64)
    denominator = (
        np.ones_like(numerator) if denominator is None else np.asarray(denominator, np.float64)
    )
    counts = resample_counts(len(numerator), replicates, seed)
    counts = np.concatenate([np.ones((1, len(numerator))), counts])
    above, below = counts @ numerator, counts @ denominator
    values = np.where(below > 0, above / np.where(below > 0, below, 1.0), empty)
    return float(values[0]), *percentile_interval(values[1:])


def weighted(
    statistic: Callable[[np.ndarray], float], n: int, *, replicates: int, seed: int
) -> tuple[float, float, float]:
    """Statistic of clip weights float64 [n] with its interval, as (value, low, high).

    The value has all weights 1.

    Repeated clips bias distances between sets upwards, so the interval is the replicates' spread
    moved to the point estimate: value + (quantile - mean of the replicates). Replicates on which
    the statistic is undefined (nan) are left out; without any other the bounds are nan.
    """
    value = statistic(np.ones(n))
    values = np.array([statistic(counts) for counts in resample_counts(n, replicates, seed)])
    values = values[np.isfinite(values)]
    if not len(values):
        return value, float("nan"), float("nan")
    low, high = percentile_interval(values - values.mean() + value)
    return value, low, high
