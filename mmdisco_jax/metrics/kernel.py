# SPDX-License-Identifier: Apache-2.0
"""Unbiased squared maximum mean discrepancy with the kernels of KID, KVD and KAD.

Gretton et al., 2012, eq. 3.

Unlike the Frechet distance it assumes no Gaussian and has no bias in the number of clips; being
unbiased, it can be slightly negative where two sets agree.
"""

from collections.abc import Callable

import numpy as np
from scipy.spatial.distance import cdist, pdist

from mmdisco_jax.metrics.bootstrap import Statistic

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]
KAD_SCALE = 100.0


def polynomial_kernel(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Polynomial kernel (<x, y> / d + 1)^3 of KID and KVD.

    Features [n, d] and [m, d] give [n, m].
    """
    return (left @ right.T / left.shape[1] + 1.0) ** 3


def rbf_kernel(bandwidth: float) -> Kernel:
    """Gaussian kernel exp(-|x - y|^2 / (2 bandwidth^2)) of KAD."""
    if not bandwidth > 0:
        raise ValueError(
            f"bandwidth={bandwidth} must be positive: are all reference features equal?"
        )
    return lambda left, right: np.exp(-cdist(left, right, "sqeuclidean") / (2 * bandwidth**2))


def median_bandwidth(reference: np.ndarray) -> float:
    """Median distance between two different clips of the reference [n, d], as KAD takes it."""
    return float(np.median(pdist(reference)))


def mmd_squared(
    reference: np.ndarray, generated: np.ndarray, kernel: Kernel
) -> tuple[float, Statistic]:
    """Discrepancy of features [m, d] and [n, d], and its biased form as a function of weights.

    Returns:
      The unbiased estimate, in which no clip is compared with itself; and (weights [r, n] of the
      generated clips, weights [r, m] of the reference) -> the discrepancy [r] of the two weighted
      distributions, never negative. With weights 1 that is larger than the first by what a clip's
      comparison with itself adds.
    """
    reference, generated = np.asarray(reference, np.float64), np.asarray(generated, np.float64)
    if min(len(reference), len(generated)) < 2:
        raise ValueError(
            f"{len(reference)} and {len(generated)} clips: the estimate needs 2 of each"
        )
    real, fake = kernel(reference, reference), kernel(generated, generated)
    between = kernel(generated, reference)

    def weighted(of_generated: np.ndarray, of_reference: np.ndarray) -> np.ndarray:
        p = of_generated / of_generated.sum(1, keepdims=True)
        q = of_reference / of_reference.sum(1, keepdims=True)
        within = ((p @ fake) * p).sum(1) + ((q @ real) * q).sum(1)
        return within - 2 * ((p @ between) * q).sum(1)

    return float(_off_diagonal(real) + _off_diagonal(fake) - 2 * between.mean()), weighted


def _off_diagonal(table: np.ndarray) -> float:
    """Mean of a square table without its diagonal."""
    return (table.sum() - np.trace(table)) / (len(table) * (len(table) - 1))
