# SPDX-License-Identifier: Apache-2.0
"""What a network may predict, converted in one place.

With x_t = alpha x_0 + sigma eps (alpha^2 + sigma^2 = 1):

    eps    the noise
    x0     the signal
    v      alpha eps - sigma x_0              (Salimans and Ho 2022)
    score  grad log p(x_t) = -eps / sigma
"""

from mmdisco_jax.types import Array

KINDS = ("eps", "x0", "v", "score")


def per_sample(value: Array, like: Array) -> Array:
    """`value` [b] with trailing ones, so that it multiplies `like` [b ...] sample by sample."""
    return value.reshape(value.shape + (1,) * (like.ndim - value.ndim))


def split_variance(prediction: Array, x: Array) -> tuple[Array, Array]:
    """Noise and variance halves, [b ... c] each, of a learned-variance model's [b ... 2c]."""
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
    """`prediction` [b ...] of kind `source`, as `target`; alpha and sigma are [b]."""
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
