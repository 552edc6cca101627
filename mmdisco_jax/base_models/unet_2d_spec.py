# SPDX-License-Identifier: Apache-2.0
"""The options of diffusers' conditional 2-D U-Net that AudioLDM and Stable Diffusion use."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mmdisco_jax.nn.config_json import attends, per_level, read_config
from mmdisco_jax.nn.norm import check_groups

# What the backward pass computes again instead of keeping, by kind of layer.
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
# sample_size is a default of the pipeline's, dropout is for training, softmax is float32 anyway,
# and the last two belong to an addition_embed_type.
_IGNORED = {
    *("sample_size", "dropout", "upcast_attention"),
    *("addition_time_embed_dim", "addition_embed_type_num_heads"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNet2DSpec:
    """Sizes and options; the defaults are Stable Diffusion 1.5's.

    Tuples have one entry for each level, from the widest picture down.

    Attributes:
      in_channels, out_channels: of the latent.
      widths: channels of the levels; each level but the last is followed by a halving.
      num_layers: residual blocks on the way down; one more on the way up.
      down_attention: levels that attend on the way down. The middle always does.
      up_attention: the same on the way up, in this order too (not in that of execution).
      num_heads: heads of the attention; the middle has those of the last level.
      context_dims: width of the context that the second attention of each transformer block sees;
        None: no second attention. Without a context it sees the picture itself again, as in
        AudioLDM, for which the dims must equal `widths`.
      num_transformers: transformer blocks of each attention.
      num_mid_transformers: those of the middle.
      num_groups, epsilon: of the group norms.
      linear_projection: kind of the layers about the transformer blocks; changes names' shapes
        ([o, i] instead of [o, i, 1, 1]), not numbers.
      cos_first, freq_shift: of the time embedding, see `sinusoidal_embedding`.
      class_dim: width of the class embedding that a call takes; None: none.
      class_concat: its projection stands beside the time's instead of being added to it.
      remat: a key of REMAT.
      compute_dtype: "float32" or "bfloat16"; norms, softmax, the time embedding, the parameters and
        the last layers keep float32.
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
        for name in (
            *("in_channels", "out_channels", "widths", "num_layers", "num_heads", "context_dims"),
            *("num_transformers", "num_mid_transformers", "num_groups", "class_dim"),
        ):
            value = getattr(self, name)
            for number in value if isinstance(value, tuple) else (value,):
                if number is not None and number < 1:
                    raise ValueError(f"{name} is {value}; each number must be at least 1.")
        for level, width in enumerate(self.widths):
            check_groups(width, self.num_groups)
            if self.attends_at(level) and width % self.num_heads[level]:
                raise ValueError(
                    f"{width} channels of level {level} do not divide into num_heads "
                    f"{self.num_heads[level]}: change one of them."
                )

    def attends_at(self, level: int) -> bool:
        """Whether any attention has this level's width; the middle has the last one's."""
        last = level == len(self.widths) - 1
        return self.down_attention[level] or self.up_attention[level] or last

    @property
    def time_dim(self) -> int:
        """Width of the embedded time."""
        return 4 * self.widths[0]

    @property
    def emb_dim(self) -> int:
        """Width of what the residual blocks see of time and class."""
        return self.time_dim * (1 + self.class_concat)

    @property
    def contexts(self) -> tuple[tuple[int, int], ...]:
        """(context_dim, width) of each level whose attention can see a context."""
        levels = zip(self.context_dims, self.widths, strict=True)
        return tuple(
            (dim, width)
            for level, (dim, width) in enumerate(levels)
            if dim is not None and self.attends_at(level)
        )


def spec_from_config(config: Mapping[str, Any], **options: Any) -> UNet2DSpec:
    """The spec of a diffusers `UNet2DConditionModel`'s `config.json`.

    Args:
      options: fields that no such file has: `remat`, `compute_dtype`.

    Raises:
      ValueError: an option that this port does not have; it is named.
    """
    read = read_config(
        config, model="2-D U-Net", defaults=_DEFAULTS, fixed=_FIXED, ignored=_IGNORED
    )
    projected = read["class_embed_type"] is not None
    if projected and read["projection_class_embeddings_input_dim"] is None:
        raise ValueError(
            "class_embed_type='simple_projection' needs projection_class_embeddings_input_dim, the "
            "width of the embedding that it projects: set it."
        )
    shared = shared_fields(
        read,
        down=("DownBlock2D", "CrossAttnDownBlock2D"),
        up=("UpBlock2D", "CrossAttnUpBlock2D"),
        heads="attention_head_dim",  # despite its name, diffusers reads the number of heads there
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
    """The fields that the configs of the 2-D and the motion U-Net give in the same way.

    Args:
      down, up: names of the plain and of the attending block.
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
    # What diffusers' converter makes of AudioLDM's "m-full".
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
