# SPDX-License-Identifier: Apache-2.0
"""A base model from outside: a small perceptron that sees each position by itself."""

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
from flax import nnx

from mmdisco_jax.base_models.api import TrainedBase, as_codec, as_schedule
from mmdisco_jax.base_models.losses import noise_prediction
from mmdisco_jax.nn.init import definition
from mmdisco_jax.process.schedules import linear
from mmdisco_jax.types import LatentFormat


class Pointwise(nnx.Module):
    """x [b ... c], t [b] -> eps of the same shape."""

    def __init__(self, channels: int, width: int, *, rngs: nnx.Rngs):
        self.up = nnx.Linear(channels + 1, width, rngs=rngs)
        self.down = nnx.Linear(width, channels, rngs=rngs)

    def hidden(self, x, t):
        level = jnp.reshape(t / 1000, (-1,) + (1,) * (x.ndim - 1))
        return nnx.silu(
            self.up(jnp.concatenate([x, jnp.broadcast_to(level, x[..., :1].shape)], -1))
        )

    def __call__(self, x, t):
        return self.down(self.hidden(x, t))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PointwiseBase(TrainedBase):
    """Recipe of `Pointwise`, for latents of any shape."""

    codec: Any
    schedule: Any = dataclasses.field(default_factory=linear)
    width: int = 8

    def __post_init__(self):
        object.__setattr__(self, "codec", as_codec(self.codec, self.clip))
        object.__setattr__(self, "schedule", as_schedule(self.schedule))

    @property
    def schedules(self):
        return {self.name: self.schedule}

    @property
    def formats(self):
        shape, clock = self.codec.latent_shape(self.clip), self.codec.clock(self.clip)
        return {self.name: LatentFormat(shape=shape, clock=clock, feature_width=self.width)}

    def definition(self):
        channels = self.formats[self.name].shape[-1]
        return definition(functools.partial(Pointwise, channels, self.width))

    def codecs(self):
        return {self.name: self.codec}

    def denoise(self, network, x, t, cond):
        return {self.name: network(x[self.name], t)}

    def features(self, network, modality, x, t):
        hidden = network.hidden(x, t)
        return hidden.mean(tuple(range(2, hidden.ndim - 1)))

    def loss(self, network, x0, key, levels: Any, history, *, max_weight):
        x = x0[self.name]
        loss, metrics = noise_prediction(
            network, x, key, self.schedule, levels, max_weight=max_weight
        )
        return loss, metrics, history
