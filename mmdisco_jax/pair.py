# SPDX-License-Identifier: Apache-2.0
"""Denoiser and log-ratio of a pair of modalities, as callable pytrees of their parameters."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from mmdisco_jax.base_models.api import Base
from mmdisco_jax.discriminator.log_ratio import log_ratio
from mmdisco_jax.process.predictions import split_variance
from mmdisco_jax.types import AV, Array, Cond, Params

Models = tuple[tuple[Base, nnx.GraphDef], ...]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class BaseDenoiser:
    """Noise estimates of frozen base models: a DenoiseFn whose parameters are pytree leaves.

    models: recipes and graph definitions. params: by the recipes' names. variance_of: modalities
    whose output also holds the learned variance, [b ... 2c].
    """

    models: Models = dataclasses.field(metadata={"static": True})
    params: dict[str, Params]
    variance_of: tuple[str, ...] = dataclasses.field(default=(), metadata={"static": True})

    def __call__(self, x: AV, t: Array, cond: Cond = None) -> AV:
        out: AV = {}
        for base, graphdef in self.models:
            some = {m: x[m] for m in base.modalities if m in x}
            if not some:
                continue  # a part of the modalities was asked for
            network = nnx.merge(graphdef, self.params[base.name])
            if not self.variance_of:
                out |= base.denoise(network, some, t, cond)
                continue
            both = base.denoise_with_variance(network, some, t, cond)
            for m, v in both.items():
                out[m] = v if m in self.variance_of else split_variance(v, x[m])[0]
        return {m: out[m] for m in x}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class DiscriminatorLogRatio:
    """Log-ratio h [b] of noisy pairs: a LogRatioFn whose parameters are pytree leaves.

    form: as of `discriminator.log_ratio`. base_params: of the base models whose features the
    discriminator reads; {} for one that reads the noisy pair itself.
    """

    graphdef: nnx.GraphDef = dataclasses.field(metadata={"static": True})
    models: Models = dataclasses.field(metadata={"static": True})
    params: Params
    base_params: dict[str, Params]
    form: str = dataclasses.field(default="logit", metadata={"static": True})

    @property
    def model(self) -> Any:
        """The discriminator as a function (x, t, cond) -> logit."""
        network = nnx.merge(self.graphdef, self.params)
        if not hasattr(network, "on_bases"):
            return network
        return network.on_bases(feature_models(self.models, self.base_params))

    def __call__(self, x: AV, t: Array, cond: Cond = None) -> Array:
        return log_ratio(self.model(x, t, cond), self.form)


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureModel:
    """Features of one modality by its base model: x_t [b ...], t [b] -> [b frames width]."""

    base: Base
    network: Any
    modality: str

    def features(self, x_t: Array, t: Array) -> Array:
        return self.base.features(self.network, self.modality, x_t, t)


def feature_models(models: Models, params: Mapping[str, Params]) -> dict[str, FeatureModel]:
    """A feature model of each modality."""
    found = {}
    for base, graphdef in models:
        network = nnx.merge(graphdef, params[base.name])
        found |= {m: FeatureModel(base, network, m) for m in base.modalities}
    return found
