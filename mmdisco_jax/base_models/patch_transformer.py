# SPDX-License-Identifier: Apache-2.0
"""Small noise predictors for one modality, trained from scratch: transformers over patches.

The network predicts x_0, which lies on a low-dimensional surface that a few wide tokens can carry,
where noise would not fit through (Li and He 2025, "Back to basics: let denoising generative models
denoise"); what leaves the model is eps.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
from flax import nnx

from mmdisco_jax.base_models.api import TrainedBase, as_codec, as_schedule
from mmdisco_jax.base_models.losses import noise_prediction
from mmdisco_jax.nn.init import Init, definition
from mmdisco_jax.nn.patches import check_patch, num_tokens, patchify, unpatchify
from mmdisco_jax.nn.transformer import ZERO, GatedMLP, NoiseLevel, Stack, layer_norm
from mmdisco_jax.process.noising import TimeSampler
from mmdisco_jax.process.predictions import convert
from mmdisco_jax.process.schedules import Schedule, linear
from mmdisco_jax.types import AV, Array, Cond, LatentFormat


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchTransformerSpec:
    """A sample's shape [frames, *axes, channels] and how it is cut.

    patch: the size of a patch along each axis. patch_width: features of a patch inside its frame;
    0 when a frame is one patch, which then is a token itself. width, depth, num_heads, taps (of the
    local convolution): the transformer over frames.
    """

    sample_shape: tuple[int, ...]
    patch: tuple[int, ...]
    patch_width: int
    width: int
    depth: int
    num_heads: int
    taps: int

    def __post_init__(self):
        object.__setattr__(self, "sample_shape", tuple(self.sample_shape))
        object.__setattr__(self, "patch", tuple(self.patch))
        check_patch(self.sample_shape, self.patch)
        if (self.patches_per_frame == 1) != (self.patch_width == 0):
            raise ValueError(
                f"patch_width is 0 exactly when a frame is one patch; got patch_width="
                f"{self.patch_width} with {self.patches_per_frame} patches a frame."
            )

    @property
    def num_frames(self) -> int:
        return self.sample_shape[0] // self.patch[0]

    @property
    def patches_per_frame(self) -> int:
        return num_tokens(self.sample_shape, self.patch) // self.num_frames

    @property
    def patch_features(self) -> int:
        return math.prod(self.patch) * self.sample_shape[-1]


class PatchCodec(nnx.Module):
    """Patches of a frame to one token and back, the way down kept as a skip for the way up.

    Only per-patch layers and two wide projections: a frame's pixels meet in its token, and all
    frames meet in the transformer.
    """

    def __init__(self, spec: PatchTransformerSpec, *, rngs: nnx.Rngs):
        n, d = spec.patches_per_frame, spec.patch_width
        self.spec = spec
        self.modulate = NoiseLevel(d, 9, rngs=rngs)
        self.proj_in = nnx.Linear(spec.patch_features, d, rngs=rngs)
        self.position = nnx.Param(0.02 * jax.random.normal(rngs.params(), (n, d)))
        self.encode_mlp = GatedMLP(d, rngs=rngs)
        self.squeeze = nnx.Linear(n * d, spec.width, rngs=rngs)
        self.expand = nnx.Linear(spec.width, n * d, rngs=rngs)
        self.decode_mlps = nnx.List([GatedMLP(d, rngs=rngs) for _ in range(2)])
        self.proj_out = nnx.Linear(d, spec.patch_features, kernel_init=ZERO, rngs=rngs)

    def encode(self, patches: Array, t: Array) -> tuple[Array, Array]:
        """patches [b f*n k] -> frame tokens [b f width], skip [b f*n d]."""
        b, n = patches.shape[0], self.spec.patches_per_frame
        h = self.proj_in(patches).reshape(b, -1, n, self.spec.patch_width) + self.position[...]
        h = self.encode_mlp(h.reshape(b, -1, self.spec.patch_width), self.modulate(t)[:, :3])
        return self.squeeze(h.reshape(b, self.spec.num_frames, -1)), h

    def decode(self, tokens: Array, skip: Array, t: Array) -> Array:
        """frame tokens [b f width], skip [b f*n d] -> patches [b f*n k]."""
        modulation = self.modulate(t)
        h = skip + self.expand(tokens).reshape(skip.shape)
        for i, mlp in enumerate(self.decode_mlps):
            h = mlp(h, modulation[:, 3 * i + 3 : 3 * i + 6])
        return self.proj_out(layer_norm(h))


class TokenCodec(nnx.Module):
    """Frames that are one patch each: a linear map either way."""

    def __init__(self, spec: PatchTransformerSpec, *, rngs: nnx.Rngs):
        self.proj_in = nnx.Linear(spec.patch_features, spec.width, rngs=rngs)
        self.proj_out = nnx.Linear(spec.width, spec.patch_features, kernel_init=ZERO, rngs=rngs)

    def encode(self, patches: Array, t: Array) -> tuple[Array, Array]:
        del t
        return self.proj_in(patches), patches

    def decode(self, tokens: Array, skip: Array, t: Array) -> Array:
        del skip, t
        return self.proj_out(layer_norm(tokens))


class PatchTransformer(nnx.Module):
    """x_t [b, *sample_shape], t [b] -> eps of the same shape."""

    def __init__(self, spec: PatchTransformerSpec, schedule: Schedule, *, rngs: nnx.Rngs):
        self.spec = spec
        self.schedule = schedule
        codec = PatchCodec if spec.patch_width else TokenCodec
        self.codec = codec(spec, rngs=rngs)
        self.modulate = NoiseLevel(spec.width, 6, rngs=rngs)
        shape = (spec.num_frames, spec.width)
        self.position = nnx.Param(0.02 * jax.random.normal(rngs.params(), shape))
        self.trunk = Stack(spec.depth, spec.width, spec.num_heads, spec.taps, rngs=rngs)

    def features(self, x_t: Array, t: Array) -> Array:
        """Features of each frame of x_t, after the trunk: [b num_frames width]."""
        return self._trunk(x_t, t)[0]

    def predict_x0(self, x_t: Array, t: Array) -> Array:
        """Predicted clean signal x_0, of x_t's shape."""
        patches = self.codec.decode(*self._trunk(x_t, t), t)
        return unpatchify(patches, self.spec.sample_shape, self.spec.patch)

    def _trunk(self, x_t: Array, t: Array) -> tuple[Array, Array]:
        """Frame tokens after the transformer, and the codec's skip."""
        h, skip = self.codec.encode(patchify(x_t, self.spec.patch), t)
        return self.trunk(h + self.position[...], self.modulate(t)), skip

    def __call__(self, x_t: Array, t: Array, cond=None) -> Array:
        del cond  # unconditional
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        return convert(self.predict_x0(x_t, t), "x0", "eps", x_t, alpha, sigma)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PatchTransformerBase(TrainedBase):
    """Recipe of a patch transformer, a small base model for one modality that is trained here.

    Attributes:
      codec, schedule: as objects, or as settings {"name": ..., ...}.
      patch: size of a patch along [frames, *axes] of the latent.
      patch_width, width, depth, num_heads, taps: as of `PatchTransformerSpec`.
    """

    codec: Any
    schedule: Any = dataclasses.field(default_factory=linear)
    patch: tuple[int, ...]
    patch_width: int = 0
    width: int = 160
    depth: int = 5
    num_heads: int = 4
    taps: int = 5

    def __post_init__(self):
        object.__setattr__(self, "codec", as_codec(self.codec, self.clip))
        object.__setattr__(self, "schedule", as_schedule(self.schedule))

    @property
    def spec(self) -> PatchTransformerSpec:
        return PatchTransformerSpec(
            sample_shape=self.codec.latent_shape(self.clip),
            patch=self.patch,
            patch_width=self.patch_width,
            width=self.width,
            depth=self.depth,
            num_heads=self.num_heads,
            taps=self.taps,
        )

    @property
    def schedules(self) -> dict[str, Schedule]:
        return {self.name: self.schedule}

    @property
    def formats(self) -> dict[str, LatentFormat]:
        return {
            self.name: LatentFormat(
                shape=self.codec.latent_shape(self.clip),
                clock=self.codec.clock(self.clip),
                feature_width=self.width,
            )
        }

    def definition(self) -> tuple[nnx.GraphDef, Init]:
        return definition(functools.partial(PatchTransformer, self.spec, self.schedule))

    def codecs(self) -> dict[str, Any]:
        return {self.name: self.codec}

    def denoise(self, network: PatchTransformer, x: AV, t: Array, cond: Cond) -> AV:
        del cond  # unconditional
        return {self.name: network(x[self.name], t)}

    def features(self, network: PatchTransformer, modality: str, x: Array, t: Array) -> Array:
        del modality
        return network.features(x, t)

    def loss(
        self,
        network: PatchTransformer,
        x0: AV,
        key: Array,
        levels: TimeSampler,
        history: Any,
        *,
        max_weight: float | None,
    ) -> tuple[Array, dict[str, Array], Any]:
        loss, metrics = noise_prediction(
            network, x0[self.name], key, self.schedule, levels, max_weight=max_weight
        )
        return loss, metrics, history
