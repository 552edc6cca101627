# SPDX-License-Identifier: Apache-2.0
"""Golden kind "image_sr_unet": MM-Diffusion's super-resolution U-Net, and its respaced levels."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmdisco_jax.base_models.image_unet import ImageUNetSpec
from mmdisco_jax.base_models.super_resolution import SuperResolution
from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.porting.load import load_module
from mmdisco_jax.samplers.levels import respaced_levels
from tests.golden.checker import FORWARD, Golden, GoldenError, Pair

# The official code ties the levels' widths to the size of the picture.
_MULTIPLES = {64: (1, 2, 3, 4), 256: (1, 1, 2, 2, 4, 4), 512: (1, 1, 2, 2, 4, 4)}


def spec_of(config: Mapping) -> ImageUNetSpec:
    """The spec of an official config, as `meta` holds it."""
    if config["class_cond"] or config["large_size"] not in _MULTIPLES:
        raise GoldenError("the kind covers networks without classes for 64, 256 or 512 pixels")
    options = {name: config[name] for name in ("num_heads_upsample", "num_head_channels")}
    heads_up, head_channels = (None if n == -1 else n for n in options.values())
    return ImageUNetSpec(
        in_channels=6,
        out_channels=6 if config["learn_sigma"] else 3,
        model_channels=config["num_channels"],
        channel_mult=_MULTIPLES[config["large_size"]],
        num_res_blocks=config["num_res_blocks"],
        attention_factors=tuple(
            factor
            for factor in map(int, config["attention_resolutions"].split(","))
            # Factors that no level has are ignored by the official code.
            if factor < 2 ** len(_MULTIPLES[config["large_size"]])
        ),
        num_heads=config["num_heads"],
        num_heads_up=heads_up,
        head_channels=head_channels,
        scale_shift_norm=config["use_scale_shift_norm"],
        resize_in_blocks=config["resblock_updown"],
        dropout=config["dropout"],
    )


def check(golden: Golden) -> dict[str, Pair]:
    config = golden.require("config")
    spec = spec_of(config)
    model = load_module(lambda: SuperResolution(spec, rngs=param_keys(0)), golden.weights())
    graphdef, params = nnx.split(model)
    x, low = (jnp.asarray(golden[name].transpose(0, 2, 3, 1)) for name in ("x", "low_res"))
    t = jnp.asarray(golden["timesteps"], jnp.int32)
    out = jax.jit(lambda params, *inputs: nnx.merge(graphdef, params)(*inputs))(params, x, t, low)
    levels = respaced_levels(config["diffusion_steps"], config["timestep_respacing"]).times[::-1]
    return {
        "out": Pair(np.asarray(out).transpose(0, 3, 1, 2), golden["out"], FORWARD),
        "ddim25_timesteps": Pair(levels, golden["ddim25_timesteps"], 0.0),
    }
