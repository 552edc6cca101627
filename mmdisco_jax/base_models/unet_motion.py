# SPDX-License-Identifier: Apache-2.0
"""AnimateDiff's motion U-Net: a 2-D U-Net with motion modules among the frames (Guo et al. 2023).

Equal to diffusers' `UNetMotionModel` in parameter names, shapes and numbers. It can be loaded whole
or assembled from a 2-D U-Net and a motion adapter.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from flax import nnx
from jax import Array

from mmdisco_jax.base_models.unet_2d import UNet2D
from mmdisco_jax.base_models.unet_2d_spec import MotionSpec, UNet2DSpec, shared_fields
from mmdisco_jax.nn.config_json import per_level, read_config
from mmdisco_jax.porting.port import Port

_MODULE = ".motion_modules."
T = TypeVar("T")

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
# sample_size is only a default of the pipeline; the others belong to an addition_embed_type.
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
class UNetMotionSpec:
    """Spec of a motion U-Net: the 2-D U-Net applied to each frame, and the motion modules in it.

    Raises:
      ValueError: the motion modules do not fit the levels of the 2-D U-Net.
    """

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
            # The position embedding is made of pairs of a sine and a cosine.
            if width % heads or width % 2:
                raise ValueError(
                    f"{width} channels do not fit motion modules of {heads} heads: the width must "
                    "be even and a multiple of the heads; change one of them."
                )


class UNetMotion(UNet2D):
    """Motion U-Net. Predicts the noise in a clip of latents.

    All frames of a clip share its timestep and its context.
    """

    def __init__(self, spec: UNetMotionSpec, *, rngs: nnx.Rngs):
        super().__init__(spec.picture, motion=spec.motion, rngs=rngs)
        self.max_frames = spec.motion.max_frames

    def __call__(
        self, x: Array, t: Array, context: Array | None = None, class_labels: Array | None = None
    ) -> Array:
        """Predict from a batch of noisy clips.

        Args:
          x: [b f h w in_channels], with at most `max_frames` frames.
          t, context, class_labels: as for `UNet2D`, one for each clip.

        Returns:
          float32 [b f h w out_channels].

        Raises:
          ValueError: an input does not fit the spec.
        """
        self.check("b f h w c", x, t, context, class_labels)
        b, f, *picture = x.shape
        if f > self.max_frames:
            raise ValueError(
                f"x has {f} frames, and the motion modules know {self.max_frames} positions: "
                "predict a shorter clip."
            )
        eps = self.predict(x.reshape(b * f, *picture), t, context, class_labels)
        return eps.reshape(b, f, *eps.shape[1:])


def spec_from_config(config: Mapping[str, Any], **options: Any) -> UNetMotionSpec:
    """Read the spec from the `config.json` of a diffusers `UNetMotionModel`.

    Args:
      options: fields of `UNet2DSpec` that no such file has: `remat`, `compute_dtype`.

    Raises:
      ValueError: the config has an option that this port does not have.
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
    """Combine a 2-D U-Net's spec with the `config.json` of a diffusers `MotionAdapter`.

    Raises:
      ValueError: the adapter was made for a U-Net of other widths, layers or groups, or its config
        has an option that this port does not have.
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
    """Read a number of the middle, which a config may hold as a list of one entry."""
    return per_level(key, value, 1)[0]


def merge_adapter(unet_2d: Mapping[str, T], adapter: Mapping[str, T]) -> dict[str, T]:
    """Merge the tensors of a 2-D U-Net and of a motion adapter into those of a motion U-Net.

    Tensors are merged by name, with the result of diffusers' `UNetMotionModel.from_unet2d`;
    `spec_with_adapter` makes the matching spec.

    Raises:
      ValueError: the adapter holds other tensors than motion modules, or the 2-D U-Net holds
        motion modules already.
    """
    odd = sorted(name for name in adapter if _MODULE not in name)
    if odd or not adapter:
        raise ValueError(
            f"a motion adapter must hold motion modules only; this one holds {odd[:6] or 'nothing'}"
            ": is it the right file?"
        )
    moving = sorted(name for name in unet_2d if _MODULE in name)
    if moving:
        raise ValueError(
            f"the 2-D U-Net already has motion modules, {moving[:3]}: load it as a motion U-Net, "
            "or give the 2-D U-Net that it was made of."
        )
    return {**unet_2d, **adapter}


# Stable Diffusion 1.5 with the motion adapter v1-5-2.
PRESETS = {"animatediff_1_5_2": UNetMotionSpec(picture=UNet2DSpec(), motion=MotionSpec())}


PORT = Port(spec_of=spec_from_config, module=UNetMotion)
