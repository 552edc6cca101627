# SPDX-License-Identifier: Apache-2.0
"""A base model of both modalities at once, as training and sampling call it.

MM-Diffusion draws the shift of its attention windows anew at every call, in sampling too. Here the
draw is an argument: of the training step's key, and in sampling of the noise level, so that a
sample depends neither on its batch nor on what was sampled before.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from mmdisco_jax.base_models.mm_diffusion import MultimodalUNet
from mmdisco_jax.base_models.mm_diffusion_spec import draw_shifts
from mmdisco_jax.process.predictions import convert, split_variance
from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.types import AV, Array, Cond

# The name of such a model among the bases.
JOINT = "joint"


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointModel:
    """A coupled U-Net, and how its output is read.

    prediction: what the network's first channels are: "eps", as MM-Diffusion has it, or another of
      `process.predictions`. A network with fewer channels than its input cannot carry all the noise
      through; such a one had better predict the signal, "x0".
    """

    network: MultimodalUNet
    schedules: Mapping[str, Schedule]
    prediction: str = "eps"

    def denoise(self, x_t: AV, t: Array, cond: Cond = None) -> AV:
        """eps of a batch whose samples share their noise level, as in sampling (a DenoiseFn)."""
        return self._eps(self._sampled(x_t, t, cond), x_t, t)

    def denoise_with_variance(self, x_t: AV, t: Array, cond: Cond = None) -> AV:
        """As `denoise`, [b ... 2c]: eps, and then the variance in its range.

        ValueError for a network without `learn_sigma`.
        """
        if not self.network.spec.learn_sigma:
            raise ValueError(
                "the base model has no learned variance (learn_sigma is False): "
                "sample with variance fixed_small or fixed_large."
            )
        return self._with_variance(self._sampled(x_t, t, cond), x_t, t)

    def training_eps(self, x_t: AV, t: Array, key: Array) -> AV:
        """eps with the randomness of training: one shift per block for the batch, and dropout.

        With a network that has `learn_sigma`, [b ... 2c]: eps, and then the variance in its range.
        """
        shift_key, dropout_key = jax.random.split(key)
        shifts = self._shifts(shift_key, x_t)
        out = self.network(x_t, t, shifts=shifts, dropout_key=dropout_key)
        if not self.network.spec.learn_sigma:
            return self._eps(out, x_t, t)
        return self._with_variance(out, x_t, t)

    def _sampled(self, x_t: AV, t: Array, cond: Cond) -> AV:
        """The network's output with the shifts of this noise level."""
        key = jax.random.fold_in(jax.random.key(0), t[0].astype(jnp.uint32))
        return self.network(x_t, t, cond, shifts=self._shifts(key, x_t))

    def _shifts(self, key: Array, x_t: AV) -> Array:
        return draw_shifts(self.network.spec, key, x_t["video"].shape[1])

    def _eps(self, out: AV, x_t: AV, t: Array) -> AV:
        """Without the variance that a network with `learn_sigma` predicts as well."""
        eps = {}
        for m, x in x_t.items():
            alpha, sigma = self.schedules[m].alpha(t), self.schedules[m].sigma(t)
            eps[m] = convert(out[m][..., : x.shape[-1]], self.prediction, "eps", x, alpha, sigma)
        return eps

    def _with_variance(self, out: AV, x_t: AV, t: Array) -> AV:
        eps = self._eps(out, x_t, t)
        variance = {m: split_variance(out[m], x)[1] for m, x in x_t.items()}
        return {m: jnp.concatenate([eps[m], variance[m]], axis=-1) for m in eps}
