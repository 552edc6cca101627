# SPDX-License-Identifier: Apache-2.0
"""Base class of joint diffusion models: several modalities denoised by one network."""

import abc
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from mmdisco_jax.base_models.api import TrainedBase, as_codec, as_schedule
from mmdisco_jax.base_models.losses import joint_noise_prediction
from mmdisco_jax.process.noising import LevelSampler
from mmdisco_jax.process.predictions import convert, split_variance
from mmdisco_jax.process.schedules import Schedule, linear
from mmdisco_jax.types import AV, Array, Cond, LatentFormat


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class JointBase(TrainedBase):
    """Base class of models that denoise several modalities with one network.

    A subclass gives `definition`, `run` and `learns_variance`.

    Attributes:
      codec: {modality: codec or its settings}; its keys are the modalities.
      schedule: {modality: schedule or its settings}; linear for those left out.
      prediction: meaning of the network's first channels: "eps", as MM-Diffusion has it, or another
        of `process.predictions`. A network with fewer channels than its input cannot carry all the
        noise through; such a one had better predict the signal, "x0".
    """

    LEVEL_SAMPLERS: ClassVar[tuple[str, ...]] = ("uniform", "loss_second_moment")

    codec: Mapping[str, Any]
    schedule: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    prediction: str = "eps"

    def __post_init__(self):
        made = {m: as_codec(c, self.clip) for m, c in sorted(self.codec.items())}
        object.__setattr__(self, "codec", made)
        given = {m: as_schedule(self.schedule.get(m) or linear()) for m in made}
        object.__setattr__(self, "schedule", given)

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.codec)

    @property
    def schedules(self) -> dict[str, Schedule]:
        return dict(self.schedule)

    @property
    def formats(self) -> dict[str, LatentFormat]:
        return {
            m: LatentFormat(shape=c.latent_shape(self.clip), clock=c.clock(self.clip))
            for m, c in self.codec.items()
        }

    def codecs(self) -> dict[str, Any]:
        return dict(self.codec)

    @property
    def learns_variance(self) -> bool:
        """True if the output has twice the channels, the second half for a learned variance."""
        return False

    @abc.abstractmethod
    def run(self, network: Any, x: AV, t: Array, cond: Cond, key: Array, *, training: bool) -> AV:
        """Output of the network; `key` is for randomness of the call, such as dropout."""
        ...

    def denoise(self, network: Any, x: AV, t: Array, cond: Cond) -> AV:
        return self._eps(self._sampled(network, x, t, cond), x, t)

    def denoise_with_variance(self, network: Any, x: AV, t: Array, cond: Cond) -> AV:
        if not self.learns_variance:
            return super().denoise_with_variance(network, x, t, cond)
        return self._with_variance(self._sampled(network, x, t, cond), x, t)

    def training_eps(self, network: Any, x: AV, t: Array, key: Array) -> AV:
        """eps with the randomness of training.

        With a network that learns the variance, [b ... 2c]: eps, then the variance in its range.
        """
        out = self.run(network, x, t, None, key, training=True)
        return self._with_variance(out, x, t) if self.learns_variance else self._eps(out, x, t)

    def _sampled(self, network: Any, x: AV, t: Array, cond: Cond) -> AV:
        """Output with the randomness of this noise level, which all samples of a batch share."""
        key = jax.random.fold_in(jax.random.key(0), t[0].astype(jnp.uint32))
        return self.run(network, x, t, cond, key, training=False)

    def _eps(self, out: AV, x: AV, t: Array) -> AV:
        eps = {}
        for m, v in x.items():
            alpha, sigma = self.schedule[m].alpha(t), self.schedule[m].sigma(t)
            eps[m] = convert(out[m][..., : v.shape[-1]], self.prediction, "eps", v, alpha, sigma)
        return eps

    def _with_variance(self, out: AV, x: AV, t: Array) -> AV:
        eps = self._eps(out, x, t)
        variance = {m: split_variance(out[m], v)[1] for m, v in x.items()}
        return {m: jnp.concatenate([eps[m], variance[m]], axis=-1) for m in eps}

    def loss(
        self,
        network: Any,
        x0: AV,
        key: Array,
        levels: LevelSampler,
        history: Any,
        *,
        max_weight: float | None,
    ) -> tuple[Array, dict[str, Array], Any]:
        return joint_noise_prediction(
            functools.partial(self.training_eps, network),
            x0,
            key,
            self.schedule,
            levels,
            history,
            max_weight=max_weight,
            learned_variance=self.learns_variance,
        )
