# SPDX-License-Identifier: Apache-2.0
"""Prediction types of diffusion models (eps, x0, v, score), and conversions between them.

With x_t = alpha x_0 + sigma eps and alpha^2 + sigma^2 = 1:

    eps    the noise
    x0     the signal
    v      alpha eps - sigma x_0              (Salimans and Ho 2022)
    score  grad log p(x_t) = -eps / sigma
"""

from mmdisco_jax.types import Array

KINDS = ("eps", "x0", "v", "score")


def per_sample(value: Array, like: Array) -> Array:
    """Reshape `value` [b] to [b 1 ... 1], so that it broadcasts against `like` [b ...]."""
    return value.reshape(value.shape + (1,) * (like.ndim - value.ndim))


def split_variance(prediction: Array, x: Array) -> tuple[Array, Array]:
    """Split the output of a learned-variance model, [b ... 2c], into noise and variance.

    Args:
      x: the noisy input [b ... c].

    Returns:
      Noise and variance, [b ... c] each.

    Raises:
      ValueError: the prediction does not have twice the channels of x.
    """
    channels = x.shape[-1]
    if prediction.shape != (*x.shape[:-1], 2 * channels):
        raise ValueError(
            f"a model with a learned variance predicts twice the channels of x {x.shape}, got "
            f"{prediction.shape}: use a fixed variance for a model of the noise alone."
        )
    return prediction[..., :channels], prediction[..., channels:]


def convert(
    prediction: Array, source: str, target: str, x_t: Array, alpha: Array, sigma: Array
) -> Array:
    """Convert a prediction from one type to another.

    Args:
      prediction, x_t: [b ...].
      source, target: entries of `KINDS`.
      alpha, sigma: coefficients of x_t's noise level, [b].

    Raises:
      ValueError: an unknown type.
    """
    for kind in (source, target):
        if kind not in KINDS:
            raise ValueError(f"unknown prediction {kind!r}: choose one of {', '.join(KINDS)}.")
    if source == target:
        return prediction
    alpha, sigma = per_sample(alpha, x_t), per_sample(sigma, x_t)
    if source == "eps":
        eps = prediction
    elif source == "x0":
        eps = (x_t - alpha * prediction) / sigma
    elif source == "v":
        eps = alpha * prediction + sigma * x_t
    else:
        eps = -sigma * prediction
    if target == "eps":
        return eps
    if target == "score":
        return -eps / sigma
    x0 = (x_t - sigma * eps) / alpha
    return x0 if target == "x0" else alpha * eps - sigma * x0
