# SPDX-License-Identifier: Apache-2.0
"""The official discriminator as a function of the pair, at any size, for training and guidance."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from mmdisco_jax.discriminator.fusion import FusionSpec
from mmdisco_jax.discriminator.official import OfficialDiscriminator, OfficialDiscriminatorSpec
from mmdisco_jax.types import AV, Array, LatentFormat


class OfficialPair(nnx.Module):
    """x_t {audio [b l m c] or [b l c], video [b f h w c]}, t [b] -> logit [b].

    cond: None, or prompt embeddings {audio, video} if the network takes text.
    """

    def __init__(self, spec: OfficialDiscriminatorSpec, *, rngs: nnx.Rngs):
        self.network = OfficialDiscriminator(spec, rngs=rngs)

    def __call__(self, x_t: AV, t: Array, cond: Mapping[str, Array] | None = None) -> Array:
        text = cond or {}
        return self.network(x_t["video"], x_t["audio"], t, text.get("video"), text.get("audio"))


def build(
    formats: Mapping[str, LatentFormat], *, rngs: nnx.Rngs, fusion: Mapping[str, Any], **spec: Any
) -> OfficialPair:
    """MMDisCo's discriminator for pairs of these formats.

    fusion: fields of `FusionSpec`. spec: fields of `OfficialDiscriminatorSpec` beside the channels,
    the rank of the audio and the sizes of the texts, which follow from the formats.
    """
    audio, video = formats["audio"], formats["video"]
    # Sequences come as lists from JSON.
    options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in spec.items()}
    made = OfficialDiscriminatorSpec(
        video_channels=video.shape[-1],
        audio_channels=audio.shape[-1],
        audio_conv="1d" if len(audio.shape) == 2 else "2d",
        video_text_dim=video.text_shape[-1] if video.text_shape else None,
        audio_text_dim=audio.text_shape[-1] if audio.text_shape else None,
        fusion=FusionSpec(**fusion),
        **options,
    )
    return OfficialPair(made, rngs=rngs)
