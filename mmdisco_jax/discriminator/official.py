# SPDX-License-Identifier: Apache-2.0
"""Official MMDisCo discriminator (Hayakawa et al. 2024, arXiv 2405.17842).

It tells real pairs of noisy video and audio from independent ones; the gradient of its logit is the
guidance. Equal to the released networks in parameter names, shapes and numbers.
"""

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jax import Array

from mmdisco_jax.discriminator.blocks import FeatureExtractor
from mmdisco_jax.discriminator.fusion import FUSIONS, FusionSpec
from mmdisco_jax.nn.checks import check_positive
from mmdisco_jax.nn.norm import check_groups
from mmdisco_jax.nn.time_embedding import TimestepEmbedding, sinusoidal_embedding


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfficialDiscriminatorSpec:
    """Sizes of the official discriminator; the defaults are what the released networks share.

    Attributes:
      video_channels, audio_channels: channels of the noisy video and audio.
      audio_conv: "2d" for audio latents [b l m c], "1d" for waveforms [b l c].
      model_channels: base width.
      channel_mult: width of each level, as a multiple of `model_channels`.
      num_res_blocks: residual blocks per level.
      num_groups: groups of every group norm; must divide each level's width.
      dilation_period: the audio dilation of block k is 2 ** (k % dilation_period); 1 for none.
      emb_dim: width of the time embedding.
      video_text_dim, audio_text_dim: widths of the text embeddings, both or neither.
      fusion: kind and sizes of the fusion model.

    Raises:
      ValueError: the sizes do not fit each other.
    """

    video_channels: int
    audio_channels: int
    audio_conv: str = "2d"
    model_channels: int = 128
    channel_mult: tuple[int, ...] = (1, 2, 4)
    num_res_blocks: int = 4
    num_groups: int = 32
    dilation_period: int = 1
    emb_dim: int = 128
    video_text_dim: int | None = None
    audio_text_dim: int | None = None
    fusion: FusionSpec = dataclasses.field(default_factory=FusionSpec)

    def __post_init__(self):
        if self.audio_conv not in ("1d", "2d"):
            raise ValueError(f"audio_conv is {self.audio_conv!r}; it must be '1d' or '2d'")
        counts = ("video_channels", "audio_channels", "num_res_blocks", "dilation_period")
        check_positive(self, *counts)
        if not self.channel_mult or min(self.channel_mult) < 1:
            raise ValueError(f"channel_mult {self.channel_mult} must hold numbers of at least 1")
        for mult in self.channel_mult:
            check_groups(mult * self.model_channels, self.num_groups)
        if (self.video_text_dim is None) != (self.audio_text_dim is None):
            raise ValueError(
                f"video_text_dim {self.video_text_dim} and audio_text_dim {self.audio_text_dim}: "
                "give both or neither"
            )

    @property
    def has_text(self) -> bool:
        """Tell whether the network takes text embeddings."""
        return self.video_text_dim is not None


_TOKENS = FusionSpec(kind="cat_time_and_apply_transformer", class_token=True)

# One entry per released architecture; the two MM-Diffusion files (AIST++, Landscape) share theirs.
PRESETS = {
    "audioldm_animatediff": OfficialDiscriminatorSpec(
        video_channels=4, audio_channels=8, video_text_dim=768, audio_text_dim=512
    ),
    "auffusion_videocrafter2": OfficialDiscriminatorSpec(
        video_channels=4, audio_channels=4, video_text_dim=1024, audio_text_dim=768, fusion=_TOKENS
    ),
    "mmdiffusion": OfficialDiscriminatorSpec(
        video_channels=3, audio_channels=1, audio_conv="1d", num_res_blocks=2, dilation_period=10
    ),
}


class TimeEmbed(nnx.Module):
    """Time embedding: t [b] -> [b emb_dim].

    The projection is nested to match the official name `time_embed.projection.*`.
    """

    def __init__(self, emb_dim: int, *, rngs: nnx.Rngs):
        self.emb_dim = emb_dim
        self.projection = TimestepEmbedding(emb_dim, emb_dim, rngs=rngs)

    def __call__(self, t: Array) -> Array:
        return self.projection(sinusoidal_embedding(t, self.emb_dim, freq_shift=1.0))


class OfficialDiscriminator(nnx.Module):
    """Official discriminator. Predicts the logit of P(the pair is real | noisy pair, t, text)."""

    def __init__(self, spec: OfficialDiscriminatorSpec, *, rngs: nnx.Rngs):
        self.spec = spec
        self.time_embed = TimeEmbed(spec.emb_dim, rngs=rngs)
        if spec.video_text_dim is not None and spec.audio_text_dim is not None:
            self.video_text_embed = nnx.Linear(spec.video_text_dim, spec.emb_dim, rngs=rngs)
            self.audio_text_embed = nnx.Linear(spec.audio_text_dim, spec.emb_dim, rngs=rngs)
        self.feature_extractor = FeatureExtractor(
            spec.video_channels,
            spec.audio_channels,
            model_channels=spec.model_channels,
            channel_mult=spec.channel_mult,
            num_res_blocks=spec.num_res_blocks,
            emb_dim=spec.emb_dim,
            num_groups=spec.num_groups,
            audio_conv=spec.audio_conv,
            dilation_period=spec.dilation_period,
            rngs=rngs,
        )
        width = self.feature_extractor.out_channels
        fusion = FUSIONS[spec.fusion.kind]
        self.fusion_model = fusion(spec.fusion, width, spec.emb_dim, rngs=rngs)
        self.last_linear = nnx.Linear(self.fusion_model.out_channels, 1, rngs=rngs)

    def __call__(
        self,
        video: Array,
        audio: Array,
        t: Array,
        text_video: Array | None = None,
        text_audio: Array | None = None,
    ) -> Array:
        """Compute the logits of a batch of noisy pairs.

        They are differentiable twice by all float inputs.

        Args:
          video: [b f h w c].
          audio: [b l m c], or [b l c] with `audio_conv="1d"`.
          t: timesteps [b], 0 .. T-1.
          text_video, text_audio: prompt embeddings, [b d] or [b s d] (averaged over s); required
            if the spec has text sizes, forbidden otherwise.

        Returns:
          Logits [b].

        Raises:
          ValueError: an input does not fit the spec.
        """
        self._check(video, audio, text_video, text_audio)
        emb = self.time_embed(t)
        video_emb = audio_emb = emb
        if text_video is not None and text_audio is not None:
            video_emb = emb + self.video_text_embed(_pooled(text_video))
            audio_emb = emb + self.audio_text_embed(_pooled(text_audio))
        features = self.feature_extractor(video, audio, video_emb, audio_emb)
        return self.last_linear(self.fusion_model(*features, emb))[:, 0]

    def _check(
        self, video: Array, audio: Array, text_video: Array | None, text_audio: Array | None
    ) -> None:
        spec = self.spec
        audio_shape = "[b l m c]" if spec.audio_conv == "2d" else "[b l c]"
        wanted = {
            "video": (video, "[b f h w c]", spec.video_channels),
            "audio": (audio, audio_shape, spec.audio_channels),
        }
        for name, (x, shape, channels) in wanted.items():
            if x.ndim != len(shape.split()) or x.shape[-1] != channels:
                raise ValueError(
                    f"{name} has shape {x.shape}; it must be {shape} with c={channels}"
                )
        for name, text in (("text_video", text_video), ("text_audio", text_audio)):
            if (text is not None) != spec.has_text:
                rule = "required" if spec.has_text else "not accepted"
                raise ValueError(f"{name} is {rule} by this discriminator (see video_text_dim)")


def _pooled(text: Array) -> Array:
    return jnp.mean(text, axis=1) if text.ndim == 3 else text
