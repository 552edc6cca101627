# SPDX-License-Identifier: Apache-2.0
"""The discriminator's two losses (MMDisCo; the official code releases neither).

Cross-entropy makes h the log-ratio; denoising makes its gradient what the base models miss:

    L = CE(h; real, fake) + w * E_real || (eps - eps_base) - r ||^2,   r = -sigma(t) dh/dx,

summed over the elements of a sample and averaged over the batch. The paper's weight is not
published; with the sum, w = 1 gave gradients of the right length in our measurements.
"""

import jax
import jax.numpy as jnp

from mmdisco_jax.types import AV, Array


def cross_entropy(real: Array, fake: Array) -> Array:
    """-E log D(real) - E log(1 - D(fake)), halved, from logits of any shapes.

    At h = 0 it is log 2. Stable for any logit.
    """
    return 0.5 * (jax.nn.softplus(-real).mean() + jax.nn.softplus(fake).mean())


def denoising(r: AV, eps: AV, eps_base: AV) -> tuple[Array, dict[str, Array]]:
    """|| eps - eps_base - r ||^2 - || eps - eps_base ||^2, per modality and summed.

    The second norm does not depend on the discriminator: without it the value is the change in
    denoising error that guidance of scale 1 makes (negative is better), and its gradient is the
    same. No gradient flows into the base model.
    """
    gain = {}
    for m in r:
        missing = jax.lax.stop_gradient(eps[m] - eps_base[m])
        axes = tuple(range(1, missing.ndim))
        gain[m] = (jnp.square(missing - r[m]) - jnp.square(missing)).sum(axes).mean()
    return jnp.asarray(sum(gain.values())), gain


def best_scale(r: AV, eps: AV, eps_base: AV) -> dict[str, Array]:
    """Least-squares s of s * r against eps - eps_base, per modality: 1 means the right length."""
    out = {}
    for m in r:
        missing = eps[m] - eps_base[m]
        out[m] = (missing * r[m]).sum() / jnp.square(r[m]).sum()
    return out


def mismatched(features: Array, groups: int, shifts: int) -> Array:
    """Features [groups * n, ...] rotated within each group by 1..shifts -> [shifts * b, ...].

    A fake pair is one sample's video with another's sound; a group shares its noise level.
    """
    n = features.shape[0] // groups
    if features.shape[0] % groups or not 1 <= shifts < n:
        raise ValueError(
            f"mismatching {features.shape[0]} samples in {groups} groups by 1..{shifts} needs "
            f"groups of equal size above {shifts}: raise the batch size, or lower groups or shifts."
        )
    split = features.reshape(groups, n, *features.shape[1:])
    rolled = [jnp.roll(split, k, axis=1).reshape(features.shape) for k in range(1, shifts + 1)]
    return jnp.concatenate(rolled)
