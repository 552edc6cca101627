# SPDX-License-Identifier: Apache-2.0
"""Official fusion models: join audio and video features into one vector per pair.

Each of the three takes video features [b f c], audio features [b l c] and the time embedding [b e],
and returns [b out_channels].
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from mmdisco_jax.discriminator.fusion_transformer import FusionTransformer
from mmdisco_jax.nn.checks import check_positive


@dataclasses.dataclass(frozen=True, kw_only=True)
class FusionSpec:
    """Kind and sizes of a fusion model; all fields but `kind` apply to the transformers only.

    Attributes:
      kind: a key of `FUSIONS`.
      num_layers: transformer layers; a class token adds one, as in the official code.
      channels: width of the tokens; even for `InterpolatedFusion`, where each modality fills half.
      out_channels: width of the joined vector.
      class_token: read the result from a learned token instead of the mean over tokens.
      num_heads, head_dim: number and width of the attention heads.
      max_tokens: number of learned positions, which limits the length of the clip.

    Raises:
      ValueError: an unknown kind, or a size that is below 1 or odd where it must be even.
    """

    kind: str = "aggregate_time_and_cat_ch"
    num_layers: int = 4
    channels: int = 256
    out_channels: int = 256
    class_token: bool = False
    num_heads: int = 8
    head_dim: int = 64
    max_tokens: int = 128

    def __post_init__(self):
        if self.kind not in FUSIONS:
            raise ValueError(f"unknown fusion kind {self.kind!r}; known kinds: {sorted(FUSIONS)}")
        sizes = ("num_layers", "channels", "out_channels", "num_heads", "head_dim", "max_tokens")
        check_positive(self, *sizes)
        if FUSIONS[self.kind] is InterpolatedFusion and self.channels % 2:
            raise ValueError(f"fusion channels {self.channels} must be even for {self.kind}")


class AggregateFusion(nnx.Module):
    """Fusion by averaging over time and concatenating: [b 2c]. It has no parameters."""

    def __init__(self, spec: FusionSpec, in_channels: int, emb_dim: int, *, rngs: nnx.Rngs):
        del spec, emb_dim, rngs
        self.out_channels = 2 * in_channels

    def __call__(self, video: Array, audio: Array, emb: Array) -> Array:
        del emb
        return jnp.concatenate([video.mean(1), audio.mean(1)], axis=-1)


class TokenFusion(nnx.Module):
    """Fusion by a transformer over one sequence: time token, video frames, audio frames."""

    modality_share = 1  # how many modalities share the width of a token

    def __init__(self, spec: FusionSpec, in_channels: int, emb_dim: int, *, rngs: nnx.Rngs):
        width = spec.channels // self.modality_share
        self.fm_video_in = nnx.Linear(in_channels, width, rngs=rngs)
        self.fm_audio_in = nnx.Linear(in_channels, width, rngs=rngs)
        self.fm_time_in = nnx.Linear(emb_dim, spec.channels, rngs=rngs)
        self.fm = FusionTransformer(
            spec.channels,
            spec.out_channels,
            num_layers=spec.num_layers,
            num_heads=spec.num_heads,
            head_dim=spec.head_dim,
            max_tokens=spec.max_tokens,
            class_token=spec.class_token,
            rngs=rngs,
        )
        self.out_channels = spec.out_channels

    def join(self, video: Array, audio: Array) -> Array:
        """Make the tokens [b s d] of both modalities."""
        return jnp.concatenate([self.fm_video_in(video), self.fm_audio_in(audio)], axis=1)

    def __call__(self, video: Array, audio: Array, emb: Array) -> Array:
        tokens = jnp.concatenate([self.fm_time_in(emb)[:, None], self.join(video, audio)], axis=1)
        out = self.fm(tokens)
        return out[:, 0] if self.fm.class_token else out.mean(1)


class InterpolatedFusion(TokenFusion):
    """Fusion by a transformer whose tokens are shared by both modalities.

    Both are resampled to the longer one's length, and each fills half of a token.
    """

    modality_share = 2

    def join(self, video: Array, audio: Array) -> Array:
        length = max(video.shape[1], audio.shape[1])
        halves = (
            self.fm_video_in(nearest(video, length)),
            self.fm_audio_in(nearest(audio, length)),
        )
        return jnp.concatenate(halves, axis=-1)


def nearest(x: Array, length: int) -> Array:
    """Resample axis 1 of x [b s c] to `length` by nearest neighbour: j takes floor(j * s / length).

    The index is computed in float32, as PyTorch's `interpolate` does. The rounding matters where
    j * s / length is a whole number.
    """
    size = x.shape[1]
    step = np.float32(size) / np.float32(length)
    index = np.floor(np.arange(length, dtype=np.float32) * step).astype(np.int32)
    return x[:, np.minimum(index, size - 1)]


FUSIONS = {
    "aggregate_time_and_cat_ch": AggregateFusion,
    "cat_time_and_apply_transformer": TokenFusion,
    "interp_time_and_cat_ch_and_apply_transformer": InterpolatedFusion,
}
