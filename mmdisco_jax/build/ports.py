# SPDX-License-Identifier: Apache-2.0
"""The networks of other libraries that this project has ported, by the class their configs name."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax import nnx

from mmdisco_jax.base_models import unet_2d_spec, unet_motion
from mmdisco_jax.base_models.unet_2d import UNet2D
from mmdisco_jax.base_models.unet_motion import UNetMotion
from mmdisco_jax.codecs import autoencoder_kl, hifi_gan
from mmdisco_jax.nn.init import skeleton
from mmdisco_jax.porting.lazy import LazyTensors, as_lazy
from mmdisco_jax.porting.load import Overrides
from mmdisco_jax.porting.weight_norm import folded
from mmdisco_jax.text import clap, clip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Port:
    """spec_of: a component's config.json -> spec. module: (spec, rngs=) -> the network.

    rename: a name in a file -> the port's, None for what holds no parameter. folds: whether files
    may hold weights apart from their magnitudes (`porting.weight_norm`). buffers: what the
    reference's files hold beside the parameters. overrides: as of `porting.load`.
    """

    spec_of: Callable[..., Any]
    module: Callable[..., nnx.Module]
    rename: Callable[[str], str | None] = str
    folds: bool = False
    buffers: Callable[[Any], Mapping[str, np.ndarray]] = lambda spec: {}
    overrides: Overrides | None = None

    def named(self, tensors: LazyTensors) -> LazyTensors:
        """A file's tensors as the port's."""
        if self.folds:
            tensors = as_lazy(folded(tensors))
        return tensors.renamed(self.rename)

    def skeleton(self, spec: Any) -> tuple[nnx.GraphDef, nnx.State]:
        """Graph definition, and shapes of the parameters."""
        return skeleton(self.module, spec)


PORTS = {
    "UNet2DConditionModel": Port(spec_of=unet_2d_spec.spec_from_config, module=UNet2D),
    "UNetMotionModel": Port(spec_of=unet_motion.spec_from_config, module=UNetMotion),
    "AutoencoderKL": Port(
        spec_of=autoencoder_kl.spec_from_config,
        module=autoencoder_kl.AutoencoderKL,
        rename=autoencoder_kl.current_name,
    ),
    "SpeechT5HifiGan": Port(
        spec_of=hifi_gan.spec_from_config,
        module=hifi_gan.HifiGan,
        folds=True,
        overrides=hifi_gan.OVERRIDES,
    ),
    "CLIPTextModel": Port(
        spec_of=clip.spec_from_config, module=clip.ClipText, rename=clip.port_name
    ),
    "ClapTextModelWithProjection": Port(
        spec_of=clap.spec_from_config,
        module=clap.ClapText,
        rename=clap.port_name,
        buffers=clap.buffers,
    ),
}


def port_of(name: str | None, where: str) -> Port:
    """ValueError for a class that is not ported."""
    if name not in PORTS:
        raise ValueError(f"{where} is a {name!r}; ported are {', '.join(PORTS)}.")
    return PORTS[name]
