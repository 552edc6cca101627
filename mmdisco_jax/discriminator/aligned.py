# SPDX-License-Identifier: Apache-2.0
"""A discriminator that compares sound and picture moment by moment (ours).

The official fusions pool each modality before they meet, or only concatenate. Here both towers keep
one feature vector per video frame, and the pair enters as products: of features at the same moment
(is there a sound where there is an impact?) and of features averaged over time (does the pitch suit
the colour?). Products matter: from concatenation alone the network must discover "these two agree",
and training stalls there.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx

from mmdisco_jax.nn.patches import check_patch, num_tokens, patchify
from mmdisco_jax.nn.transformer import Block, GatedMLP, NoiseLevel, layer_norm
from mmdisco_jax.types import AV, Array

ORDER = ("audio", "video")


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
    towers: dict[str, TowerSpec]
    width: int
    tower_depth: int
    fusion_depth: int
    num_heads: int

    @property
    def num_moments(self) -> int:
        return self.towers["video"].num_frames


class Tower(nnx.Module):
    """x_t [b, *sample_shape], t [b] -> features [b, moments, width].

    Patches keep their place in the frame: an impact is *where* the ball is.
    """

    def __init__(self, spec: TowerSpec, whole: AlignedSpec, *, rngs: nnx.Rngs):
        self.spec, self.num_moments = spec, whole.num_moments
        n = num_tokens(spec.sample_shape, spec.patch) // spec.num_frames
        features = math.prod(spec.patch) * spec.sample_shape[-1]
        self.modulate_patches = NoiseLevel(spec.patch_width, 3, rngs=rngs)
        self.modulate = NoiseLevel(whole.width, 6, rngs=rngs)
        self.proj_in = nnx.Linear(features, spec.patch_width, rngs=rngs)
        self.place = nnx.Param(0.02 * jax.random.normal(rngs.params(), (n, spec.patch_width)))
        self.patch_mlp = GatedMLP(spec.patch_width, rngs=rngs)
        self.squeeze = nnx.Linear(n * spec.patch_width, whole.width, rngs=rngs)
        shape = (whole.num_moments, whole.width)
        self.position = nnx.Param(0.02 * jax.random.normal(rngs.params(), shape))
        self.blocks = nnx.List(
            [Block(whole.width, whole.num_heads, rngs=rngs) for _ in range(whole.tower_depth)]
        )

    def __call__(self, x_t: Array, t: Array) -> Array:
        b, (n, d) = x_t.shape[0], self.place[...].shape
        h = self.proj_in(patchify(x_t, self.spec.patch)).reshape(b, -1, n, d) + self.place[...]
        h = self.patch_mlp(h.reshape(b, -1, d), self.modulate_patches(t))
        h = self.squeeze(h.reshape(b, self.spec.num_frames, n * d))
        if h.shape[1] != self.num_moments:  # both towers speak of the same moments
            h = jax.image.resize(h, (b, self.num_moments, h.shape[2]), "linear")
        h = h + self.position[...]
        modulation = self.modulate(t)
        for block in self.blocks:
            h = block(h, modulation)
        return layer_norm(h)


def _projections(width: int, rngs: nnx.Rngs) -> dict[str, nnx.Linear]:
    return {m: nnx.Linear(width, width, use_bias=False, rngs=rngs) for m in ORDER}


class Fusion(nnx.Module):
    """Audio and video features [b, moments, width] of a pair -> logit [b]."""

    def __init__(self, spec: AlignedSpec, *, rngs: nnx.Rngs):
        width = spec.width
        self.modulate = NoiseLevel(width, 6, rngs=rngs)
        self.proj_in = nnx.Linear(3 * width, width, rngs=rngs)
        self.blocks = nnx.List(
            [Block(width, spec.num_heads, rngs=rngs) for _ in range(spec.fusion_depth)]
        )
        self.moment = nnx.Dict(_projections(width, rngs))
        self.whole = nnx.Dict(_projections(width, rngs))
        self.modulate_terms = NoiseLevel(width, 2, rngs=rngs)
        self.last_linear = nnx.Linear(width, 1, rngs=rngs)

    def __call__(self, audio: Array, video: Array, t: Array) -> Array:
        modulation, terms = self.modulate(t), self.modulate_terms(t)
        h = self.proj_in(jnp.concatenate([audio, video, audio * video], axis=-1))
        for block in self.blocks:
            h = block(h, modulation)
        logit = self.last_linear(layer_norm(h).mean(1))[:, 0]
        scale = audio.shape[-1] ** -0.5
        same_moment = self.moment["audio"](audio) * self.moment["video"](video)
        overall = self.whole["audio"](audio.mean(1)) * self.whole["video"](video.mean(1))
        logit += scale * (same_moment.mean(1) * (1 + terms[:, 0])).sum(-1)
        return logit + scale * (overall * (1 + terms[:, 1])).sum(-1)


class AlignedDiscriminator(nnx.Module):
    """x_t {audio [b l m c], video [b f h w c]}, t [b] -> logit [b]."""

    def __init__(self, spec: AlignedSpec, *, rngs: nnx.Rngs):
        self.towers = nnx.Dict({m: Tower(spec.towers[m], spec, rngs=rngs) for m in ORDER})
        self.fusion = Fusion(spec, rngs=rngs)

    def features(self, x_t: AV, t: Array) -> AV:
        """Features of each modality on its own: {m: [b, moments, width]}."""
        return {m: self.towers[m](x_t[m], t) for m in ORDER}

    def fuse(self, features: AV, t: Array) -> Array:
        """The logit [b] of pairs given by their features."""
        return self.fusion(features["audio"], features["video"], t)

    def __call__(self, x_t: AV, t: Array, cond=None) -> Array:
        del cond  # unconditional
        return self.fuse(self.features(x_t, t), t)


def build(*, rngs: nnx.Rngs, towers: dict, **spec) -> AlignedDiscriminator:
    """The registry's entry: fields of AlignedSpec, `towers` as {modality: TowerSpec fields}."""
    made = {m: TowerSpec(**fields) for m, fields in towers.items()}
    return AlignedDiscriminator(AlignedSpec(towers=made, **spec), rngs=rngs)
