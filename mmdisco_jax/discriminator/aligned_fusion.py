# SPDX-License-Identifier: Apache-2.0
"""Fusion heads: turn the modalities' features at the same moments into one logit per pair.

`products` is this project's head. The other three put the official fusion models (`fusion.py`)
behind the same towers, so that an ablation changes nothing but the fusion.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx

from mmdisco_jax.discriminator.fusion import FUSIONS, FusionSpec
from mmdisco_jax.nn.time_embedding import sinusoidal_embedding
from mmdisco_jax.nn.transformer import NoiseLevel, layer_norm
from mmdisco_jax.types import Array

PAIR = ("audio", "video")


class AlignedFusion(nnx.Module):
    """Fusion head with products of features: {m: [b moments width]}, t [b] -> logit [b].

    The logit contains, of every two modalities, products of the features at the same moment (does
    an impact coincide with its sound?) and of the features averaged over time (does the pitch fit
    the colour?). From a concatenation alone the network must first learn to compare the modalities,
    and training stalls.
    """

    def __init__(self, spec: Any, modalities: Sequence[str] = PAIR, *, rngs: nnx.Rngs):
        width, self.modalities = spec.width, tuple(modalities)
        self.pairs = tuple(itertools.combinations(self.modalities, 2))
        num_terms = len(self.modalities) + len(self.pairs)
        self.modulate = NoiseLevel(width, 6, rngs=rngs)
        self.proj_in = nnx.Linear(num_terms * width, width, rngs=rngs)
        self.stack = spec.stack(spec.fusion_depth, rngs)
        self.moment = self._projections(width, rngs)
        self.whole = self._projections(width, rngs)
        self.modulate_terms = NoiseLevel(width, 2, rngs=rngs)
        self.last_linear = nnx.Linear(width, 1, rngs=rngs)

    def _projections(self, width: int, rngs: nnx.Rngs) -> nnx.Dict:
        return nnx.Dict(
            {m: nnx.Linear(width, width, use_bias=False, rngs=rngs) for m in self.modalities}
        )

    def __call__(self, features: Mapping[str, Array], t: Array) -> Array:
        terms = self.modulate_terms(t)
        each = [features[m] for m in self.modalities]
        products = [features[m] * features[n] for m, n in self.pairs]
        h = self.proj_in(jnp.concatenate([*each, *products], axis=-1))
        h = self.stack(h, self.modulate(t))
        logit = self.last_linear(layer_norm(h).mean(1))[:, 0]
        scale = each[0].shape[-1] ** -0.5
        same_moment = self._compared({m: self.moment[m](features[m]) for m in self.modalities})
        overall = self._compared({m: self.whole[m](features[m].mean(1)) for m in self.modalities})
        logit += scale * (same_moment.mean(1) * (1 + terms[:, 0])).sum(-1)
        return logit + scale * (overall * (1 + terms[:, 1])).sum(-1)

    def _compared(self, projected: Mapping[str, Array]) -> Array:
        """Sum over the pairs of modalities of their products."""
        first, *rest = (projected[m] * projected[n] for m, n in self.pairs)
        return sum(rest, start=first)


class OfficialFusionHead(nnx.Module):
    """Fusion head with one of the official fusion models: features {m: [b moments width]} -> [b].

    Args:
      modalities: two, of which the first takes the place of the sound.
      kind: a key of `FUSIONS`.

    Raises:
      ValueError: more or fewer modalities than two.
    """

    def __init__(self, spec: Any, modalities: Sequence[str] = PAIR, *, kind: str, rngs: nnx.Rngs):
        width, self.modalities = spec.width, tuple(modalities)
        if len(self.modalities) != 2:
            raise ValueError(
                f"fusion {kind!r} joins two modalities, but there are {list(self.modalities)}: use "
                "fusion='products', which compares any number of them."
            )
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

    def __call__(self, features: Mapping[str, Array], t: Array) -> Array:
        audio, video = (features[m] for m in self.modalities)
        emb = sinusoidal_embedding(t, self.width, cos_first=True)
        joined = self.fusion_model(video, audio, emb)
        return self.last_linear(joined)[:, 0]


FUSION_HEADS: Mapping[str, Callable[..., Any]] = {
    "products": AlignedFusion,
    **{kind: partial(OfficialFusionHead, kind=kind) for kind in FUSIONS},
}
