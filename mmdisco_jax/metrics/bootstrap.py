# SPDX-License-Identifier: Apache-2.0
"""Bootstrap intervals over clips (Efron, 1979): seeded, vectorised, in float64.

`ratio` is for sums over one set of clips, `paired` for their differences between two sets of the
same noise; both are percentile intervals (Efron and Tibshirani 1993, chapter 13). `of_distance` and
`of_comparison` are for distances between sets, which resampling biases.
"""

from collections.abc import Callable, Sequence

import numpy as np

LEVEL = 0.95
Z = 1.959963984540054  # of a normal interval at this level
STEP = 0.2  # no weight is negative until a clip is drawn more than six times
MAX_REPLICATES = 200  # of distances: each replicate costs two eigendecompositions
CHUNK = 64  # replicates at once, which bounds the memory of covariances

# Weights float64 [r, n] of the clips of each set -> values [r].
Statistic = Callable[..., np.ndarray]


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


def expansion(
    statistic: Statistic, sizes: Sequence[int], *, replicates: int, seed: int
) -> tuple[float, np.ndarray, np.ndarray]:
    """First and second order of a statistic under resampling of every set it rests on.

    Each replicate moves the weights from 1 towards bootstrap counts by a small step and by its
    opposite. Half of the difference is the first order, what is left of the mean the second.

    Args:
      statistic: (weights float64 [r, n_1], weights [r, n_2], ...) -> values [r].
      sizes: clips of each set, n_1, n_2, ...
      replicates: r; a call of `statistic` sees `CHUNK` of them at most.
      seed: of the counts.

    Returns:
      The value with all weights 1, and the two orders, float64 [replicates] each.
    """
    rng = np.random.default_rng(seed)
    value = float(statistic(*(np.ones((1, n)) for n in sizes))[0])
    first, second = [], []
    for start in range(0, replicates, CHUNK):
        count = min(CHUNK, replicates - start)
        moves = [rng.multinomial(n, np.full(n, 1 / n), size=count) - 1.0 for n in sizes]
        up = statistic(*(1 + STEP * move for move in moves))
        down = statistic(*(1 - STEP * move for move in moves))
        first.append((up - down) / (2 * STEP))
        second.append(((up + down) / 2 - value) / STEP**2)
    return value, np.concatenate(first), np.concatenate(second)


def of_distance(
    distance: Statistic,
    sizes: Sequence[int],
    *,
    replicates: int,
    seed: int,
    unbiased: float | None = None,
) -> tuple[float, float, float]:
    """Squared distance between sets with its 95 % interval, as (value, low, high).

    The interval is of the mean that the value would have over new sets of these sizes; it does not
    remove the bias of a distance. All sets are resampled. Repeated clips make a distance larger
    and, near zero, its spread up to sqrt(3) times too wide, so no quantile of it is used. Instead
    (Efron and Stein 1981) the variance is split into that of the first order, V1 = J - 2 V2, and
    that of the second, V2, where J is the variance of `expansion`'s first order, which contains
    2 V2. As for a noncentral chi-squared variable, V1 grows in proportion to the distance: J /
    value is its slope. Solving (value - mean)^2 = z^2 V(mean) for the mean gives a score interval
    (Wilson 1927), which is longer upwards and needs no separate rule where two sets agree.

    Args:
      distance: as for `expansion`; never negative, and a function of the weighted distributions
        alone.
      sizes, replicates, seed: as for `expansion`.
      unbiased: an estimate to report instead, which differs by a constant: the interval moves.
    """
    value, first, second = expansion(distance, sizes, replicates=replicates, seed=seed)
    noise, floor = second.var(), second.mean()
    near = value < floor / 100  # sets that are copies of each other leave no slope to measure
    slope = 2 * noise / floor if near else first.var() / value if value > 0 else 0.0
    half = Z**2 * slope / 2
    reach = np.sqrt(max(half**2 + Z**2 * noise + 2 * half * (value - floor), half**2))
    low, high = max(value + half - reach, 0.0), value + half + reach
    moved = 0.0 if unbiased is None else unbiased - value
    return value + moved, float(low + moved), float(high + moved)


def of_comparison(
    statistic: Statistic,
    sizes: Sequence[int],
    *,
    replicates: int,
    seed: int,
    unbiased: float | None = None,
) -> tuple[float, float, float]:
    """Difference or ratio of two distances with its 95 % interval, as (value, low, high).

    A normal interval of its mean, with the variance of `of_distance`'s two orders; clips and
    reference are resampled for both distances alike. Arguments as for `of_distance`.
    """
    value, first, second = expansion(statistic, sizes, replicates=replicates, seed=seed)
    variance = max(first.var() - 2 * second.var(), 0.0) + second.var()
    value, reach = value if unbiased is None else unbiased, float(Z * np.sqrt(variance))
    return value, value - reach, value + reach


def paired(
    left: Statistic, right: Statistic, n: int, *, replicates: int, seed: int
) -> tuple[float, float, float]:
    """Difference of a ratio of sums on two sets of paired clips, as (value, low, high).

    Clip i of both sets is drawn together (percentile bootstrap over pairs): what they share, such
    as their noise, does not widen the interval.
    """
    counts = np.concatenate([np.ones((1, n)), resample_counts(n, replicates, seed)])
    values = left(counts) - right(counts)
    return float(values[0]), *percentile_interval(values[1:])
