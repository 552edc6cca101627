# SPDX-License-Identifier: Apache-2.0
"""A discriminator that compares sound and picture moment by moment (ours).

The official fusions pool each modality before they meet, or only concatenate. Here both towers keep
one feature vector per video frame, and the pair enters as products (see `AlignedFusion`).

The towers read the noisy pair itself, or what the frozen base models make of it (`on_bases`): a
base already knows which signal is plausible behind the noise, which a light network would have to
learn again, and the derivative of its features is the posterior's covariance, which is where the
gradient of the log-ratio must come from.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Protocol

import jax
from flax import nnx

from mmdisco_jax.discriminator.aligned_fusion import FUSION_HEADS
from mmdisco_jax.nn.patches import check_patch, num_tokens, patchify
from mmdisco_jax.nn.transformer import GatedMLP, NoiseLevel, Stack, layer_norm
from mmdisco_jax.types import AV, Array, LatentFormat

ORDER = ("audio", "video")


class FeatureModel(Protocol):
    """A base model that shows its features: x_t [b ...], t [b] -> [b frames features]."""

    def features(self, x_t: Array, t: Array) -> Array: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class TowerSpec:
    """One modality: sample_shape [frames, *axes, c]; patch along the axes; features of a patch."""

    sample_shape: tuple[int, ...]
    patch: tuple[int, ...]
    patch_width: int

    def __post_init__(self):
        object.__setattr__(self, "sample_shape", tuple(self.sample_shape))
        object.__setattr__(self, "patch", tuple(self.patch))
        check_patch(self.sample_shape, self.patch)

    @property
    def num_frames(self) -> int:
        return self.sample_shape[0] // self.patch[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignedSpec:
    """num_moments: at which the modalities meet. width, num_heads, taps (of the local convolution):
    of all transformer blocks; depths: how many. fusion: a key of FUSION_HEADS."""

    num_moments: int
    width: int
    tower_depth: int
    fusion_depth: int
    num_heads: int
    taps: int = 0
    fusion: str = "products"

    def __post_init__(self):
        if self.fusion not in FUSION_HEADS:
            known = ", ".join(FUSION_HEADS)
            raise ValueError(f"unknown fusion {self.fusion!r}: choose one of {known}.")

    def stack(self, depth: int, rngs: nnx.Rngs) -> Stack:
        return Stack(depth, self.width, self.num_heads, self.taps, rngs=rngs)


class MomentTower(nnx.Module):
    """Features [b frames d] of one modality, t [b] -> [b moments width]."""

    def __init__(self, in_features: int, spec: AlignedSpec, *, rngs: nnx.Rngs):
        self.num_moments = spec.num_moments
        self.modulate = NoiseLevel(spec.width, 6, rngs=rngs)
        self.proj_in = nnx.Linear(in_features, spec.width, rngs=rngs)
        shape = (spec.num_moments, spec.width)
        self.position = nnx.Param(0.02 * jax.random.normal(rngs.params(), shape))
        self.stack = spec.stack(spec.tower_depth, rngs)

    def __call__(self, features: Array, t: Array) -> Array:
        h = self.proj_in(features)
        if h.shape[1] != self.num_moments:  # both towers speak of the same moments
            h = jax.image.resize(h, (h.shape[0], self.num_moments, h.shape[2]), "linear")
        return layer_norm(self.stack(h + self.position[...], self.modulate(t)))


class FramePatches(nnx.Module):
    """x_t [b, *sample_shape], t [b] -> the patches of each frame, side by side [b frames d].

    Patches keep their place in the frame: an impact is *where* the ball is.
    """

    def __init__(self, spec: TowerSpec, *, rngs: nnx.Rngs):
        n = num_tokens(spec.sample_shape, spec.patch) // spec.num_frames
        features = math.prod(spec.patch) * spec.sample_shape[-1]
        self.spec, self.out_features = spec, n * spec.patch_width
        self.modulate = NoiseLevel(spec.patch_width, 3, rngs=rngs)
        self.proj_in = nnx.Linear(features, spec.patch_width, rngs=rngs)
        self.place = nnx.Param(0.02 * jax.random.normal(rngs.params(), (n, spec.patch_width)))
        self.mlp = GatedMLP(spec.patch_width, rngs=rngs)

    def __call__(self, x_t: Array, t: Array) -> Array:
        b, (n, d) = x_t.shape[0], self.place[...].shape
        h = self.proj_in(patchify(x_t, self.spec.patch)).reshape(b, -1, n, d) + self.place[...]
        h = self.mlp(h.reshape(b, -1, d), self.modulate(t))
        return h.reshape(b, self.spec.num_frames, n * d)


class AlignedDiscriminator(nnx.Module):
    """x_t {audio [b l m c], video [b f h w c]}, t [b] -> logit [b]."""

    def __init__(self, towers: Mapping[str, TowerSpec], spec: AlignedSpec, *, rngs: nnx.Rngs):
        self.patches = nnx.Dict({m: FramePatches(towers[m], rngs=rngs) for m in ORDER})
        self.towers = nnx.Dict(
            {m: MomentTower(self.patches[m].out_features, spec, rngs=rngs) for m in ORDER}
        )
        self.fusion = FUSION_HEADS[spec.fusion](spec, rngs=rngs)

    def features(self, x_t: AV, t: Array) -> AV:
        """Features of each modality on its own: {m: [b, moments, width]}."""
        return {m: self.towers[m](self.patches[m](x_t[m], t), t) for m in ORDER}

    def fuse(self, features: AV, t: Array) -> Array:
        """The logit [b] of pairs given by their features."""
        return self.fusion(features["audio"], features["video"], t)

    def __call__(self, x_t: AV, t: Array, cond=None) -> Array:
        del cond  # unconditional
        return self.fuse(self.features(x_t, t), t)


class FeatureDiscriminator(nnx.Module):
    """The same on the features of the base models; `on_bases` makes it a function of x_t."""

    def __init__(self, in_features: Mapping[str, int], spec: AlignedSpec, *, rngs: nnx.Rngs):
        self.towers = nnx.Dict({m: MomentTower(in_features[m], spec, rngs=rngs) for m in ORDER})
        self.fusion = FUSION_HEADS[spec.fusion](spec, rngs=rngs)

    def on_bases(self, bases: Mapping[str, FeatureModel]) -> "OnBases":
        return OnBases(self, bases)


@dataclasses.dataclass(frozen=True, eq=False)
class OnBases:
    """x_t, t -> logit through frozen bases, whose parameters get no gradient; x_t does."""

    head: FeatureDiscriminator
    bases: Mapping[str, FeatureModel]

    def features(self, x_t: AV, t: Array) -> AV:
        """Features of each modality on its own: {m: [b, moments, width]}."""
        return {m: self.head.towers[m](self.bases[m].features(x_t[m], t), t) for m in ORDER}

    def fuse(self, features: AV, t: Array) -> Array:
        """The logit [b] of pairs given by their features."""
        return self.head.fusion(features["audio"], features["video"], t)

    def __call__(self, x_t: AV, t: Array, cond=None) -> Array:
        del cond  # unconditional
        return self.fuse(self.features(x_t, t), t)


def build(
    formats: Mapping[str, LatentFormat],
    *,
    rngs: nnx.Rngs,
    towers: Mapping[str, Mapping[str, Any]],
    num_moments: int = 0,
    **spec: Any,
) -> AlignedDiscriminator:
    """Time-aligned discriminator of noisy pairs of these formats.

    towers: {modality: {"patch": ..., "patch_width": ...}}. num_moments: 0 takes the frames of the
    modality that has fewest. spec: the other fields of `AlignedSpec`.
    """
    made = {m: TowerSpec(sample_shape=formats[m].shape, **fields) for m, fields in towers.items()}
    aligned = AlignedSpec(num_moments=num_moments or _fewest_frames(formats), **spec)
    return AlignedDiscriminator(made, aligned, rngs=rngs)


def build_on_bases(
    formats: Mapping[str, LatentFormat], *, rngs: nnx.Rngs, num_moments: int = 0, **spec: Any
) -> FeatureDiscriminator:
    """Time-aligned discriminator on the features of base models of these formats; see `build`.

    Raises:
      ValueError: a base model that offers no features.
    """
    widths = {m: formats[m].feature_width for m in formats}
    without = [m for m, width in widths.items() if not width]
    if without:
        raise ValueError(
            f"the base models of {', '.join(without)} offer no features: use a discriminator of "
            "the noisy pair itself, such as 'aligned' or 'official'."
        )
    aligned = AlignedSpec(num_moments=num_moments or _fewest_frames(formats), **spec)
    return FeatureDiscriminator(widths, aligned, rngs=rngs)


def _fewest_frames(formats: Mapping[str, LatentFormat]) -> int:
    return min(format.shape[0] for format in formats.values())
