# SPDX-License-Identifier: Apache-2.0
"""Golden kind "mm_diffusion_unet": the coupled U-Net's noise, every block's shift held."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmdisco_jax.base_models.mm_diffusion_spec import CHANNEL_MULT, MMDiffusionSpec
from mmdisco_jax.base_models.mm_diffusion_unet import MultimodalUNet
from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.porting.load import load_module
from tests.golden.checker import FORWARD, Golden, GoldenError, Pair

_TO_OURS = {"video": (0, 1, 3, 4, 2), "audio": (0, 2, 1)}
# What belongs to the sampler, or changes no number.
_ELSEWHERE = {
    *("diffusion_steps", "noise_schedule", "timestep_respacing", "use_kl", "predict_xstart"),
    *("rescale_timesteps", "rescale_learned_sigmas", "use_checkpoint", "video_size", "audio_size"),
    *("num_heads_upsample", "cross_attention_shift"),
}
_FIXED = {"class_cond": False, "use_fp16": False, "audio_type": "1d"}
_SAME = {
    *("num_res_blocks", "num_heads", "dropout", "use_scale_shift_norm", "resblock_updown"),
    *("video_type", "learn_sigma"),
}
_LISTS = {
    *("cross_attention_resolutions", "cross_attention_windows", "channel_mult"),
    *("video_attention_resolutions", "audio_attention_resolutions"),
}


def spec_of(config: Mapping) -> MMDiffusionSpec:
    """The spec of an official config, as `meta` holds it."""
    known = {*_ELSEWHERE, *_FIXED, *_SAME, *_LISTS, "num_channels", "num_head_channels"}
    other = {name for name in config if name not in known}
    other |= {name for name, value in _FIXED.items() if config[name] != value}
    if other:
        raise GoldenError(f"options this project does not have: {sorted(other)}")
    lists: dict[str, Any] = {
        name: tuple(int(part) for part in config[name].split(",") if part not in ("", "-1"))
        for name in _LISTS
    }
    lists["channel_mult"] = lists["channel_mult"] or CHANNEL_MULT[config["video_size"][-1]]
    head_channels = config["num_head_channels"]
    return MMDiffusionSpec(
        video_channels=config["video_size"][1],
        audio_channels=config["audio_size"][0],
        model_channels=config["num_channels"],
        num_head_channels=None if head_channels == -1 else head_channels,
        middle_cross_attention=lists["cross_attention_windows"] == (1, 4, 8),
        **{name: config[name] for name in _SAME},
        **lists,
    )


def _shift(golden: Golden) -> int:
    """The number in "min(2, frames - window)"."""
    words = re.fullmatch(r"min\((\d+), frames - window\)", golden.require("window_shift"))
    if words is None:
        raise GoldenError(f"{golden.path}: unknown window_shift {golden.meta['window_shift']!r}")
    return int(words[1])


def check(golden: Golden) -> dict[str, Pair]:
    spec = spec_of(golden.require("config"))
    weights = golden.weights()
    network = load_module(lambda: MultimodalUNet(spec, rngs=param_keys(0)), weights)
    graphdef, params = nnx.split(network)
    x_t = {m: jnp.asarray(golden[m].transpose(axes)) for m, axes in _TO_OURS.items()}
    frames, shift = x_t["video"].shape[1], _shift(golden)
    shifts = [min(shift, frames - (window or frames)) for window in spec.windows]

    @jax.jit
    def run(params, x_t, t, shifts):
        return nnx.merge(graphdef, params)(x_t, t, shifts=shifts)

    eps = run(
        params, x_t, jnp.asarray(golden["timesteps"], jnp.int32), jnp.asarray(shifts, jnp.int32)
    )
    return {
        f"eps_{m}": Pair(
            np.asarray(eps[m]).transpose(np.argsort(axes)), golden[f"eps_{m}"], FORWARD
        )
        for m, axes in _TO_OURS.items()
    }
