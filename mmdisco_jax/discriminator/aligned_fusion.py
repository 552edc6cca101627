# SPDX-License-Identifier: Apache-2.0
"""Fusion heads: turn audio and video features at the same moments into one logit per pair.

`products` is this project's head. The other three put the official fusion models (`fusion.py`)
behind the same towers, so that an ablation changes nothing but the fusion.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx

from mmdisco_jax.discriminator.fusion import FUSIONS, FusionSpec
from mmdisco_jax.nn.time_embedding import sinusoidal_embedding
from mmdisco_jax.nn.transformer import NoiseLevel, layer_norm
from mmdisco_jax.types import Array

_MODALITIES = ("audio", "video")


def _projections(width: int, rngs: nnx.Rngs) -> nnx.Dict:
    return nnx.Dict({m: nnx.Linear(width, width, use_bias=False, rngs=rngs) for m in _MODALITIES})


class AlignedFusion(nnx.Module):
    """Fusion head with products of features: audio and video [b moments width] -> logit [b].

    The logit contains products of the features at the same moment (does an impact coincide with its
    sound?) and of the features averaged over time (does the pitch fit the colour?). From a
    concatenation alone the network must first learn to compare the modalities, and training stalls.
    """

    def __init__(self, spec: Any, *, rngs: nnx.Rngs):
        width = spec.width
        self.modulate = NoiseLevel(width, 6, rngs=rngs)
        self.proj_in = nnx.Linear(3 * width, width, rngs=rngs)
        self.stack = spec.stack(spec.fusion_depth, rngs)
        self.moment = _projections(width, rngs)
        self.whole = _projections(width, rngs)
        self.modulate_terms = NoiseLevel(width, 2, rngs=rngs)
        self.last_linear = nnx.Linear(width, 1, rngs=rngs)

    def __call__(self, audio: Array, video: Array, t: Array) -> Array:
        terms = self.modulate_terms(t)
        h = self.proj_in(jnp.concatenate([audio, video, audio * video], axis=-1))
        h = self.stack(h, self.modulate(t))
        logit = self.last_linear(layer_norm(h).mean(1))[:, 0]
        scale = audio.shape[-1] ** -0.5
        same_moment = self.moment["audio"](audio) * self.moment["video"](video)
        overall = self.whole["audio"](audio.mean(1)) * self.whole["video"](video.mean(1))
        logit += scale * (same_moment.mean(1) * (1 + terms[:, 0])).sum(-1)
        return logit + scale * (overall * (1 + terms[:, 1])).sum(-1)


class OfficialFusionHead(nnx.Module):
    """Fusion head with one of the official fusion models: features [b moments width] -> logit [b].

    Args:
      kind: a key of `FUSIONS`.
    """

    def __init__(self, spec: Any, *, kind: str, rngs: nnx.Rngs):
        width = spec.width
        fusion = FusionSpec(
            kind=kind,
            num_layers=spec.fusion_depth,
            channels=width,
            out_channels=width,
            num_heads=spec.num_heads,
            head_dim=width // spec.num_heads,
        )
        self.width = width
        self.fusion_model = FUSIONS[kind](fusion, width, width, rngs=rngs)
        self.last_linear = nnx.Linear(self.fusion_model.out_channels, 1, rngs=rngs)

    def __call__(self, audio: Array, video: Array, t: Array) -> Array:
        emb = sinusoidal_embedding(t, self.width, cos_first=True)
        joined = self.fusion_model(video, audio, emb)
        return self.last_linear(joined)[:, 0]


FUSION_HEADS: Mapping[str, Callable[..., Any]] = {
    "products": AlignedFusion,
    **{kind: partial(OfficialFusionHead, kind=kind) for kind in FUSIONS},
}
