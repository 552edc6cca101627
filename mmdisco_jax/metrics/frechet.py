# SPDX-License-Identifier: Apache-2.0
"""Frechet distance of two Gaussians fitted to features, as in FID, FVD and FAD.

By Dowson and Landau (1982) it is

    |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1^(1/2) S2 S1^(1/2))^(1/2)

computed in float64 and by eigenvalues of symmetric matrices only, so that a singular covariance
(fewer clips than dimensions) gives a finite, real number where a general matrix square
root may not.
"""

import numpy as np


def gaussian(
    features: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean [d] and unbiased covariance [d, d] of features [n, d]; weights [n] are repeat counts."""
    features = np.asarray(features, np.float64)
    weights = np.ones(len(features)) if weights is None else weights
    total = weights.sum()
    if features.ndim != 2 or total < 2:
        raise ValueError(f"features have shape {features.shape}; a covariance needs [n >= 2, d]")
    mean = weights @ features / total
    centred = features - mean
    return mean, (weights[:, None] * centred).T @ centred / (total - 1)


def frechet_distance(
    mean1: np.ndarray, covariance1: np.ndarray, mean2: np.ndarray, covariance2: np.ndarray
) -> float:
    """Squared Frechet distance, >= 0, of two Gaussians with means [d] and covariances [d, d]."""
    d = np.size(mean1)
    if np.shape(mean2) != (d,) or {np.shape(covariance1), np.shape(covariance2)} != {(d, d)}:
        raise ValueError(
            f"means {np.shape(mean1)}, {np.shape(mean2)} and covariances {np.shape(covariance1)}, "
            f"{np.shape(covariance2)} do not fit: [d], [d], [d, d], [d, d]"
        )
    values, vectors = np.linalg.eigh(covariance1)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    inner = root @ covariance2 @ root
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh((inner + inner.T) / 2), 0.0)).sum()
    apart = ((np.asarray(mean1, np.float64) - mean2) ** 2).sum()
    return float(max(apart + np.trace(covariance1) + np.trace(covariance2) - 2 * cross, 0.0))
