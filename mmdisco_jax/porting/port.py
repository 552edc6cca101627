# SPDX-License-Identifier: Apache-2.0
"""Registry of networks ported from diffusers and transformers, by their class names.

Each port stands beside its network, as a constant `PORT`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax import nnx

from mmdisco_jax.porting.lazy import LazyTensors, as_lazy
from mmdisco_jax.porting.load import Overrides
from mmdisco_jax.porting.weight_norm import folded
from mmdisco_jax.registry import Registry


@dataclasses.dataclass(frozen=True, kw_only=True)
class Port:
    """Mapping from a reference network's config and tensors to the NNX module of this project.

    spec_of: a component's config.json -> spec. module: (spec, rngs=) -> the network.
    rename: a tensor's name in a file -> the port's, None for one that is no parameter. folds:
    whether files may hold weights apart from their magnitudes (`porting.weight_norm`). buffers:
    tensors of the reference's files that are no parameters. overrides: as of `porting.load`.
    """

    spec_of: Callable[..., Any]
    module: Callable[..., nnx.Module]
    rename: Callable[[str], str | None] = str
    folds: bool = False
    buffers: Callable[[Any], Mapping[str, np.ndarray]] = lambda spec: {}
    overrides: Overrides | None = None

    def named(self, tensors: LazyTensors) -> LazyTensors:
        """The tensors of a file under the port's names."""
        if self.folds:
            tensors = as_lazy(folded(tensors))
        return tensors.renamed(self.rename)


PORTS = Registry(
    "ported network",
    {
        "AutoencoderKL": "mmdisco_jax.codecs.autoencoder_kl:PORT",
        "CLIPTextModel": "mmdisco_jax.text.clip:PORT",
        "ClapTextModelWithProjection": "mmdisco_jax.text.clap:PORT",
        "SpeechT5HifiGan": "mmdisco_jax.codecs.hifi_gan:PORT",
        "UNet2DConditionModel": "mmdisco_jax.base_models.unet_2d:PORT",
        "UNetMotionModel": "mmdisco_jax.base_models.unet_motion:PORT",
    },
)
