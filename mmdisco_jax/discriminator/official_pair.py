# SPDX-License-Identifier: Apache-2.0
"""The official discriminator as a function of the pair, at any size, for training and guidance."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from mmdisco_jax.discriminator.fusion import FusionSpec
from mmdisco_jax.discriminator.official import OfficialDiscriminator, OfficialDiscriminatorSpec
from mmdisco_jax.types import AV, Array


class OfficialPair(nnx.Module):
    """x_t {audio [b l m c] or [b l c], video [b f h w c]}, t [b] -> logit [b].

    cond: None, or prompt embeddings {audio, video} if the network takes text.
    """

    def __init__(self, spec: OfficialDiscriminatorSpec, *, rngs: nnx.Rngs):
        self.network = OfficialDiscriminator(spec, rngs=rngs)

    def __call__(self, x_t: AV, t: Array, cond: Mapping[str, Array] | None = None) -> Array:
        text = cond or {}
        return self.network(x_t["video"], x_t["audio"], t, text.get("video"), text.get("audio"))


def build(*, rngs: nnx.Rngs, fusion: dict[str, Any], **spec: Any) -> OfficialPair:
    """The registry's entry: fields of OfficialDiscriminatorSpec, with `fusion` as FusionSpec's."""
    spec = {k: tuple(v) if isinstance(v, list) else v for k, v in spec.items()}
    made = OfficialDiscriminatorSpec(fusion=FusionSpec(**fusion), **spec)
    return OfficialPair(made, rngs=rngs)
