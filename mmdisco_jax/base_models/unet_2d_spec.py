# SPDX-License-Identifier: Apache-2.0
"""Specs of diffusers' conditional 2-D U-Net and of AnimateDiff's motion modules.

A spec is read from a diffusers `config.json` or taken from `PRESETS`. It covers the options that
Stable Diffusion, AudioLDM and AnimateDiff use; any other option is refused by name.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mmdisco_jax.nn.checks import check_positive
from mmdisco_jax.nn.config_json import attends, per_level, read_config
from mmdisco_jax.nn.norm import check_groups

# Kinds of layers that the backward pass recomputes instead of storing their activations.
REMAT = {
    "none": (),
    "attention": ("attention", "motion"),
    "blocks": ("resnet", "attention", "motion"),
}

_DEFAULTS = {
    "in_channels": 4,
    "out_channels": 4,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "cross_attention_dim": 1280,
    "transformer_layers_per_block": 1,
    "attention_head_dim": 8,
    "use_linear_projection": False,
    "class_embed_type": None,
    "projection_class_embeddings_input_dim": None,
    "class_embeddings_concat": False,
}
_FIXED = {
    "center_input_sample": (False,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "only_cross_attention": (False,),
    "mid_block_only_cross_attention": (None, False),
    "downsample_padding": (1,),
    "mid_block_scale_factor": (1,),
    "act_fn": ("silu", "swish"),
    "reverse_transformer_layers_per_block": (None,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "num_attention_heads": (None,),
    "dual_cross_attention": (False,),
    "num_class_embeds": (None,),
    "class_embed_type": (None, "simple_projection"),
    "addition_embed_type": (None,),
    "resnet_time_scale_shift": ("default",),
    "resnet_skip_time_act": (False,),
    "resnet_out_scale_factor": (1,),
    "time_embedding_type": ("positional",),
    "time_embedding_dim": (None,),
    "time_embedding_act_fn": (None,),
    "timestep_post_act": (None,),
    "time_cond_proj_dim": (None,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "attention_type": ("default",),
    "cross_attention_norm": (None,),
}
# sample_size is only a default of the pipeline, dropout only matters in diffusers' own training,
# softmax is always float32 here, and the last two belong to an addition_embed_type.
_IGNORED = {
    *("sample_size", "dropout", "upcast_attention"),
    *("addition_time_embed_dim", "addition_embed_type_num_heads"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNet2DSpec:
    """Sizes and options of the 2-D U-Net; the defaults are those of Stable Diffusion 1.5.

    Tuples have one entry per level, from the highest resolution down.

    Attributes:
      in_channels, out_channels: channels of the latent.
      widths: channels of each level. Every level but the last is followed by a downsampling.
      num_layers: residual blocks on the way down; the way up has one more.
      down_attention: levels with attention on the way down. The middle always has attention.
      up_attention: levels with attention on the way up, also from the highest resolution down.
      num_heads: attention heads; the middle has those of the last level.
      context_dims: width of the context for each transformer block's second attention, or None for
        no second attention. If a call passes no context, the second attention is self-attention
        too, as in AudioLDM; the dims must then equal `widths`.
      num_transformers: transformer blocks of each attention.
      num_mid_transformers: transformer blocks in the middle.
      num_groups, epsilon: parameters of the group norms.
      linear_projection: the projections around the transformer blocks are linear layers, not 1x1
        convolutions. This changes the shapes in a checkpoint, [o i] instead of [o i 1 1], but no
        number.
      cos_first, freq_shift: see `sinusoidal_embedding`.
      class_dim: width of the class embedding that each call takes, or None.
      class_concat: concatenate the projected class embedding to the time embedding instead of
        adding it.
      remat: a key of `REMAT`.
      compute_dtype: "float32" or "bfloat16". Parameters, norms, softmax, the time embedding and the
        last layers are always float32.

    Raises:
      ValueError: a number is below 1, a tuple has the wrong length, or widths do not divide into
        groups or heads.
    """

    in_channels: int = 4
    out_channels: int = 4
    widths: tuple[int, ...] = (320, 640, 1280, 1280)
    num_layers: tuple[int, ...] = (2, 2, 2, 2)
    down_attention: tuple[bool, ...] = (True, True, True, False)
    up_attention: tuple[bool, ...] = (True, True, True, False)
    num_heads: tuple[int, ...] = (8, 8, 8, 8)
    context_dims: tuple[int | None, ...] = (768, 768, 768, 768)
    num_transformers: tuple[int, ...] = (1, 1, 1, 1)
    num_mid_transformers: int = 1
    num_groups: int = 32
    epsilon: float = 1e-5
    linear_projection: bool = False
    cos_first: bool = True
    freq_shift: float = 0.0
    class_dim: int | None = None
    class_concat: bool = False
    remat: str = "none"
    compute_dtype: str = "float32"

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, tuple):
                if len(value) != len(self.widths) or not value:
                    raise ValueError(f"{field.name} {value} must have an entry for each level.")
                object.__setattr__(self, field.name, tuple(value))
        self._check_numbers()
        for name, choices in (
            ("remat", tuple(REMAT)),
            ("compute_dtype", ("float32", "bfloat16")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {choices}.")
        if self.class_concat and self.class_dim is None:
            raise ValueError("class_concat needs a class embedding: set class_dim to its width.")

    def _check_numbers(self) -> None:
        check_positive(
            self,
            *("in_channels", "out_channels", "widths", "num_layers", "num_heads", "context_dims"),
            *("num_transformers", "num_mid_transformers", "num_groups", "class_dim"),
        )
        for level, width in enumerate(self.widths):
            check_groups(width, self.num_groups)
            if self.attends_at(level) and width % self.num_heads[level]:
                raise ValueError(
                    f"{width} channels of level {level} do not divide into num_heads "
                    f"{self.num_heads[level]}: change one of them."
                )

    def attends_at(self, level: int) -> bool:
        """Tell whether any attention has this level's width, the middle included."""
        last = level == len(self.widths) - 1
        return self.down_attention[level] or self.up_attention[level] or last

    @property
    def time_dim(self) -> int:
        """Width of the time embedding."""
        return 4 * self.widths[0]

    @property
    def emb_dim(self) -> int:
        """Width of the embedding of time and class that the residual blocks receive."""
        return self.time_dim * (1 + self.class_concat)

    @property
    def contexts(self) -> tuple[tuple[int, int], ...]:
        """Pairs (context_dim, width) of the levels whose attention can see a context."""
        levels = zip(self.context_dims, self.widths, strict=True)
        return tuple(
            (dim, width)
            for level, (dim, width) in enumerate(levels)
            if dim is not None and self.attends_at(level)
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MotionSpec:
    """Sizes of AnimateDiff's motion modules; the defaults are those of adapter v1-5-2.

    Attributes:
      num_heads: attention heads at each level; the middle has those of the last level.
      num_layers: transformer blocks of each module, per level.
      num_mid_layers: transformer blocks of the module in the middle, or None for no such module.
      max_frames: rows of the position tables, which is the longest clip.

    Raises:
      ValueError: a number is below 1.
    """

    num_heads: tuple[int, ...] = (8, 8, 8, 8)
    num_layers: tuple[int, ...] = (1, 1, 1, 1)
    num_mid_layers: int | None = 1
    max_frames: int = 32

    def __post_init__(self):
        check_positive(self, *(field.name for field in dataclasses.fields(self)))


def spec_from_config(config: Mapping[str, Any], **options: Any) -> UNet2DSpec:
    """Read the spec from the `config.json` of a diffusers `UNet2DConditionModel`.

    Args:
      options: fields that no such file has: `remat`, `compute_dtype`.

    Raises:
      ValueError: the config has an option that this port does not have.
    """
    read = read_config(
        config, model="2-D U-Net", defaults=_DEFAULTS, fixed=_FIXED, ignored=_IGNORED
    )
    projected = read["class_embed_type"] is not None
    if projected and read["projection_class_embeddings_input_dim"] is None:
        raise ValueError(
            "class_embed_type='simple_projection' needs projection_class_embeddings_input_dim, the "
            "width of the class embedding: set it."
        )
    shared = shared_fields(
        read,
        down=("DownBlock2D", "CrossAttnDownBlock2D"),
        up=("UpBlock2D", "CrossAttnUpBlock2D"),
        heads="attention_head_dim",  # despite its name, it holds the number of heads
    )
    return UNet2DSpec(
        **shared,
        num_mid_transformers=shared["num_transformers"][-1],
        cos_first=read["flip_sin_to_cos"],
        freq_shift=read["freq_shift"],
        class_dim=read["projection_class_embeddings_input_dim"] if projected else None,
        class_concat=bool(read["class_embeddings_concat"]),
        **options,
    )


def shared_fields(
    read: Mapping[str, Any], *, down: tuple[str, str], up: tuple[str, str], heads: str
) -> dict[str, Any]:
    """Collect the spec fields that the configs of the 2-D and the motion U-Net share.

    Args:
      read: the config's values, from `read_config`.
      down, up: block types without and with attention.
      heads: key of the number of heads.
    """
    widths = tuple(read["block_out_channels"])

    def levels(key: str) -> tuple:
        return per_level(key, read[key], len(widths))

    climbing = attends("up_block_types", read["up_block_types"], *up)
    return {
        "in_channels": read["in_channels"],
        "out_channels": read["out_channels"],
        "widths": widths,
        "num_layers": levels("layers_per_block"),
        "down_attention": attends("down_block_types", read["down_block_types"], *down),
        "up_attention": climbing[::-1],
        "num_heads": levels(heads),
        "context_dims": levels("cross_attention_dim"),
        "num_transformers": levels("transformer_layers_per_block"),
        "num_groups": read["norm_num_groups"],
        "epsilon": read["norm_eps"],
        "linear_projection": read["use_linear_projection"],
    }


_MEDIUM = (192, 384, 576, 960)
PRESETS = {
    "stable_diffusion_1_5": UNet2DSpec(),
    # AudioLDM's "m-full" checkpoint after diffusers' conversion.
    "audioldm_m_full": UNet2DSpec(
        in_channels=8,
        out_channels=8,
        widths=_MEDIUM,
        down_attention=(False, True, True, True),
        up_attention=(False, True, True, True),
        context_dims=_MEDIUM,
        class_dim=512,
        class_concat=True,
    ),
}
