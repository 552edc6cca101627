# SPDX-License-Identifier: Apache-2.0
"""The options of the motion U-Net (AnimateDiff, Guo et al. 2023), and its configs."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mmdisco_jax.base_models.unet_2d_spec import UNet2DSpec, shared_fields
from mmdisco_jax.nn.config_json import per_level, read_config

_DEFAULTS = {
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": (*["CrossAttnDownBlockMotion"] * 3, "DownBlockMotion"),
    "up_block_types": ("UpBlockMotion", *["CrossAttnUpBlockMotion"] * 3),
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "cross_attention_dim": 1280,
    "transformer_layers_per_block": 1,
    "transformer_layers_per_mid_block": None,
    "temporal_transformer_layers_per_block": 1,
    "temporal_transformer_layers_per_mid_block": 1,
    "use_linear_projection": False,
    "num_attention_heads": 8,
    "motion_max_seq_length": 32,
    "motion_num_attention_heads": 8,
    "use_motion_mid_block": True,
}
_FIXED = {
    "downsample_padding": (1,),
    "mid_block_scale_factor": (1,),
    "mid_block_layers": (1,),
    "act_fn": ("silu", "swish"),
    "reverse_transformer_layers_per_block": (None,),
    "reverse_temporal_transformer_layers_per_block": (None,),
    "reverse_motion_num_attention_heads": (None,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "addition_embed_type": (None,),
    "time_cond_proj_dim": (None,),
}
# sample_size is a default of the pipeline's; the others belong to an addition_embed_type.
_IGNORED = {
    *("sample_size", "addition_time_embed_dim", "projection_class_embeddings_input_dim"),
}
_ADAPTER_DEFAULTS = {
    "block_out_channels": (320, 640, 1280, 1280),
    "motion_layers_per_block": 2,
    "motion_transformer_layers_per_block": 1,
    "motion_transformer_layers_per_mid_block": 1,
    "motion_num_attention_heads": 8,
    "motion_norm_num_groups": 32,
    "motion_max_seq_length": 32,
    "use_motion_mid_block": True,
}
_ADAPTER_FIXED = {"motion_mid_block_layers_per_block": (1,), "conv_in_channels": (None, 0)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MotionSpec:
    """The motion modules beside a 2-D U-Net's layers; the defaults are adapter v1-5-2's.

    Attributes:
      num_heads: heads of their attention, for each level; the middle has the last level's.
      num_layers: transformer blocks of each module, for each level.
      num_mid_layers: those of the module in the middle; None: no such module.
      max_frames: rows of the tables of positions, and with them the longest clip.
    """

    num_heads: tuple[int, ...] = (8, 8, 8, 8)
    num_layers: tuple[int, ...] = (1, 1, 1, 1)
    num_mid_layers: int | None = 1
    max_frames: int = 32

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            numbers = value if isinstance(value, tuple) else (value,)
            if any(number is not None and number < 1 for number in numbers):
                raise ValueError(f"{field.name} is {value}; each number must be at least 1.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNetMotionSpec:
    """A 2-D U-Net, which each frame goes through, and the motion modules in it."""

    picture: UNet2DSpec
    motion: MotionSpec

    def __post_init__(self):
        widths, motion = self.picture.widths, self.motion
        for name in ("num_heads", "num_layers"):
            if len(getattr(motion, name)) != len(widths):
                raise ValueError(
                    f"{name} {getattr(motion, name)} of the motion modules must have an entry for "
                    f"each of the {len(widths)} levels."
                )
        for width, heads in zip(widths, motion.num_heads, strict=True):
            # Positions come as pairs of a sine and a cosine.
            if width % heads or width % 2:
                raise ValueError(
                    f"{width} channels do not fit motion modules of {heads} heads: the width must "
                    "be even and a multiple of the heads; change one of them."
                )


def spec_from_config(config: Mapping[str, Any], **options: Any) -> UNetMotionSpec:
    """The spec of a diffusers `UNetMotionModel`'s `config.json`.

    Args:
      options: fields of `UNet2DSpec` that no such file has: `remat`, `compute_dtype`.

    Raises:
      ValueError: an option that this port does not have; it is named.
    """
    read = read_config(
        config, model="motion U-Net", defaults=_DEFAULTS, fixed=_FIXED, ignored=_IGNORED
    )
    shared = shared_fields(
        read,
        down=("DownBlockMotion", "CrossAttnDownBlockMotion"),
        up=("UpBlockMotion", "CrossAttnUpBlockMotion"),
        heads="num_attention_heads",
    )
    middle = read["transformer_layers_per_mid_block"]
    if middle is None:
        middle = shared["num_transformers"][-1]
    picture = UNet2DSpec(
        **shared,
        num_mid_transformers=_one("transformer_layers_per_mid_block", middle),
        **options,
    )
    num_levels = len(picture.widths)
    key = "temporal_transformer_layers_per_mid_block"
    motion = MotionSpec(
        num_heads=_levels(read, "motion_num_attention_heads", num_levels),
        num_layers=_levels(read, "temporal_transformer_layers_per_block", num_levels),
        num_mid_layers=_one(key, read[key]) if read["use_motion_mid_block"] else None,
        max_frames=read["motion_max_seq_length"],
    )
    return UNetMotionSpec(picture=picture, motion=motion)


def spec_with_adapter(picture: UNet2DSpec, adapter: Mapping[str, Any]) -> UNetMotionSpec:
    """The motion U-Net of a 2-D U-Net and a diffusers `MotionAdapter`'s `config.json`.

    Raises:
      ValueError: the adapter was made for a U-Net of other widths, layers or groups, or has an
        option that this port does not have.
    """
    read = read_config(
        adapter,
        model="motion adapter",
        defaults=_ADAPTER_DEFAULTS,
        fixed=_ADAPTER_FIXED,
        ignored=(),
    )
    num_levels = len(picture.widths)
    for key, wanted, found in (
        ("block_out_channels", picture.widths, tuple(read["block_out_channels"])),
        ("motion_layers_per_block", picture.num_layers, read["motion_layers_per_block"]),
        ("motion_norm_num_groups", picture.num_groups, read["motion_norm_num_groups"]),
    ):
        if key == "motion_layers_per_block":
            found = per_level(key, found, num_levels)
        if found != wanted:
            raise ValueError(
                f"the motion adapter has {key}={found}, and the 2-D U-Net {wanted}: they do not "
                "belong together; use an adapter for this U-Net."
            )
    key = "motion_transformer_layers_per_mid_block"
    motion = MotionSpec(
        num_heads=_levels(read, "motion_num_attention_heads", num_levels),
        num_layers=_levels(read, "motion_transformer_layers_per_block", num_levels),
        num_mid_layers=_one(key, read[key]) if read["use_motion_mid_block"] else None,
        max_frames=read["motion_max_seq_length"],
    )
    return UNetMotionSpec(picture=picture, motion=motion)


def _levels(read: Mapping[str, Any], key: str, num_levels: int) -> tuple:
    return per_level(key, read[key], num_levels)


def _one(key: str, value: Any) -> int:
    """The number of a middle with one attention, which may be written as a list of one."""
    return per_level(key, value, 1)[0]


# Stable Diffusion 1.5 with the motion adapter v1-5-2.
PRESETS = {"animatediff_1_5_2": UNetMotionSpec(picture=UNet2DSpec(), motion=MotionSpec())}
