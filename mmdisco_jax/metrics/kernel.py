# SPDX-License-Identifier: Apache-2.0
"""Unbiased squared maximum mean discrepancy with the kernels of KID, KVD and KAD.

Gretton et al., 2012, eq. 3.

Unlike the Frechet distance it assumes no Gaussian and has no bias in the number of clips; being
unbiased, it can be slightly negative where two sets agree.
"""

from collections.abc import Callable

import numpy as np
from scipy.spatial.distance import cdist, pdist

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
) -> tuple[float, Callable[[np.ndarray], float]]:
    """Discrepancy of features [m, d] and [n, d], and it as a function of repeat counts [n].

    A clip drawn twice is not compared with itself, so that the bootstrap keeps the estimate
    unbiased; where only one clip was drawn there is no pair, and the function gives nan.
    """
    reference, generated = np.asarray(reference, np.float64), np.asarray(generated, np.float64)
    if min(len(reference), len(generated)) < 2:
        raise ValueError(
            f"{len(reference)} and {len(generated)} clips: the estimate needs 2 of each"
        )
    real = kernel(reference, reference)
    of_real = (real.sum() - np.trace(real)) / (len(real) * (len(real) - 1))
    fake = kernel(generated, generated)
    np.fill_diagonal(fake, 0.0)
    towards = kernel(reference, generated).mean(0)

    def weighted(counts: np.ndarray) -> float:
        total = counts.sum()
        pairs = total**2 - (counts**2).sum()
        if pairs == 0:
            return float("nan")
        return float(of_real + counts @ fake @ counts / pairs - 2 * counts @ towards / total)

    return weighted(np.ones(len(generated))), weighted
