# SPDX-License-Identifier: Apache-2.0
"""A base model of both modalities at once, as training and sampling call it.

MM-Diffusion draws the shift of its attention windows anew at every call, in sampling too. Here the
draw is an argument: of the training step's key, and in sampling of the noise level, so that a
sample depends neither on its batch nor on what was sampled before.
"""

import jax

from mmdisco_jax.base_models.mm_diffusion import MultimodalUNet
from mmdisco_jax.base_models.mm_diffusion_spec import draw_shifts
from mmdisco_jax.types import AV, Array, Cond, DenoiseFn

# The name of such a model among the bases.
JOINT = "joint"


def denoiser(model: MultimodalUNet) -> DenoiseFn:
    """eps of a batch whose samples share their noise level, as in sampling."""

    def eps(x_t: AV, t: Array, cond: Cond) -> AV:
        key = jax.random.fold_in(jax.random.key(0), t[0])
        return _noise(model(x_t, t, cond, shifts=_shifts(model, key, x_t)), x_t)

    return eps


def training_eps(model: MultimodalUNet, x_t: AV, t: Array, key: Array) -> AV:
    """eps with the randomness of training: one shift per block for the batch, and dropout."""
    shift_key, dropout_key = jax.random.split(key)
    shifts = _shifts(model, shift_key, x_t)
    return _noise(model(x_t, t, shifts=shifts, dropout_key=dropout_key), x_t)


def _shifts(model: MultimodalUNet, key: Array, x_t: AV) -> Array:
    return draw_shifts(model.spec, key, x_t["video"].shape[1])


def _noise(out: AV, x_t: AV) -> AV:
    """Without the variance that a model with `learn_sigma` predicts as well."""
    return {m: out[m][..., : x_t[m].shape[-1]] for m in x_t}
