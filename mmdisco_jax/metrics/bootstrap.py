# SPDX-License-Identifier: Apache-2.0
"""Bootstrap intervals over clips (Efron, 1979): seeded, vectorised, in float64.

`ratio` is for sums over one set of clips, `paired` for their differences between two sets of the
same noise; both are percentile intervals (Efron and Tibshirani 1993, chapter 13). `of_distance` and
`of_comparison` are for distances between sets, which resampling biases.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

LEVEL = 0.95
FAY = 0.5  # share of a half-sample's change at which the second order is taken
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


@dataclasses.dataclass(frozen=True)
class Orders:
    """A statistic's value, and the variance of its first order and of its second under resampling.

    bias: mean of the second order, by which the value lies above that of infinitely many clips.
    first contains the second twice, as a jackknife does (Efron and Stein 1981): for sums of pairs
    of clips its expectation is V1 + 2 V2, where V1 + V2 is the variance.
    """

    value: float
    first: float
    second: float
    bias: float

    @property
    def variance(self) -> float:
        """V1 + V2, at least V2."""
        return max(self.first - 2 * self.second, 0.0) + self.second


def orders(statistic: Statistic, sizes: Sequence[int], *, replicates: int, seed: int) -> Orders:
    """First and second order of a statistic, with every set that it rests on resampled.

    By random balanced half-samples (McCarthy 1969): one half of each set gains what the other
    loses. Half of the change when they trade places is the first order, what is left of their mean
    is the second. No clip counts more than twice, which in bootstrap counts makes the second order
    too large. The second is taken at half the change (Fay 1989), since covariances of few clips
    are far from quadratic.

    Args:
      statistic: (weights float64 [r, n_1], weights [r, n_2], ...) -> values [r].
      sizes: clips of each set, n_1, n_2, ...
      replicates: number of half-samples; a call of `statistic` sees `CHUNK` of them at most.
      seed: of the halves.
    """
    rng = np.random.default_rng(seed)
    value = float(statistic(*(np.ones((1, n)) for n in sizes))[0])
    first, second = [], []
    for start in range(0, replicates, CHUNK):
        halves = [_halves(rng, min(CHUNK, replicates - start), n) for n in sizes]
        up, down, above, below = (
            statistic(*(1 + step * half for half in halves)) for step in (1, -1, FAY, -FAY)
        )
        first.append((up - down) / 2)
        second.append(((above + below) / 2 - value) / FAY**2)
    one, two = np.concatenate(first), np.concatenate(second)
    return Orders(value, float(one.var()), float(two.var()), float(two.mean()))


def _halves(rng: np.random.Generator, replicates: int, n: int) -> np.ndarray:
    """Float64 [replicates, n]: 1 for a random half, -1 for the other; of odd n, one clip is 0."""
    rank = rng.random((replicates, n)).argsort(1)
    return (rank < n // 2) * 1.0 - (rank >= n - n // 2)


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
    remove the bias of a distance. All sets are resampled. A bootstrap's quantiles do not serve:
    repeated clips make a distance larger and, near zero, its spread sqrt(3) times too wide. Here
    the variance is that of `orders`, and as for a noncentral chi-squared variable its first part
    grows in proportion to the distance, with the slope first / value. Solving
    (value - mean)^2 = z^2 V(mean) for the mean gives a score interval (Wilson 1927), which is
    longer upwards and needs no rule of its own where two sets agree. In 400 trials it held the mean
    of Frechet and kernel distances of Gaussians, equal or apart, in 93 to 96 % for 256 against 256
    clips of 3 to 25 features, and in 92 to 95 % for 64 against 256.

    Args:
      distance: as for `orders`; never negative, and a function of the weighted distributions alone.
      sizes, replicates, seed: as for `orders`.
      unbiased: an estimate to report instead, which differs by a constant: the interval moves.
    """
    found = orders(distance, sizes, replicates=replicates, seed=seed)
    value, floor = found.value, found.bias
    near = value < floor / 100  # sets that are copies of each other leave no slope to measure
    slope = 2 * found.second / floor if near else found.first / value if value > 0 else 0.0
    z = _quantile(sizes)
    half = z**2 * slope / 2
    inner = half**2 + z**2 * found.second + 2 * half * (value - floor)
    reach = np.sqrt(max(inner, half**2))
    low, high = max(value + half - reach, 0.0), value + half + reach
    moved = 0.0 if unbiased is None else unbiased - value
    return value + moved, float(low + moved), float(high + moved)


def _quantile(sizes: Sequence[int]) -> float:
    """Student's, for the smallest set: a variance of few clips is itself uncertain."""
    return float(stats.t.ppf((1 + LEVEL) / 2, max(min(sizes) - 1, 1)))


def of_comparison(
    statistic: Statistic,
    sizes: Sequence[int],
    *,
    replicates: int,
    seed: int,
    unbiased: float | None = None,
) -> tuple[float, float, float]:
    """Difference or ratio of two distances with its 95 % interval, as (value, low, high).

    A normal interval of its mean, with the variance of `orders`; clips and reference are resampled
    for both distances alike. Arguments as for `of_distance`.
    """
    found = orders(statistic, sizes, replicates=replicates, seed=seed)
    value, reach = (
        found.value if unbiased is None else unbiased,
        float(_quantile(sizes) * found.variance**0.5),
    )
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
