# SPDX-License-Identifier: Apache-2.0
"""Golden kind "discriminator": logit, probability, log-ratio and its scaled input gradients."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmdisco_jax.discriminator.fusion import FusionSpec
from mmdisco_jax.discriminator.log_ratio import log_ratio
from mmdisco_jax.discriminator.official import OfficialDiscriminator, OfficialDiscriminatorSpec
from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.porting.load import load_module
from tests.golden.checker import FORWARD, GRADIENT, Golden, GoldenError, Pair

# Official options this project leaves out: none of the released networks uses them.
_FIXED = {
    "cross_attention_resolutions": [],
    "video_attention_resolutions": [],
    "audio_attention_resolutions": [],
    "video_conv_type": "2d+1d",
    "use_scale_shift_norm": True,
    "first_norm_type": None,
    "dropout": 0,
}


def spec_of(config: Mapping) -> OfficialDiscriminatorSpec:
    """The spec of an official config, as `meta` holds it."""
    extractor, fusion = config["feature_extractor"], config["fusion_model_conf"]
    other = {name: extractor[name] for name, value in _FIXED.items() if extractor[name] != value}
    if other or not config["last_sigmoid"]:
        raise GoldenError(f"options this project does not have: {other or 'last_sigmoid=False'}")
    text = config["text_cond"]
    transformer = (
        {}
        if fusion["fusion_type"] == "aggregate_time_and_cat_ch"
        else {
            "num_layers": fusion["num_attn_layers"],
            "channels": fusion["model_channels"],
            "out_channels": fusion["out_channels"],
            "class_token": fusion["use_class_token"],
        }
    )
    return OfficialDiscriminatorSpec(
        video_channels=extractor["video_cdim"],
        audio_channels=extractor["audio_cdim"],
        audio_conv=extractor["audio_conv_type"],
        model_channels=extractor["model_channels"],
        channel_mult=tuple(extractor["channel_mult"]),
        num_res_blocks=extractor["num_res_blocks"],
        dilation_period=extractor["max_dila"],
        emb_dim=config["time_embed_dims"],
        video_text_dim=config["video_text_emb_dims"] if text else None,
        audio_text_dim=config["audio_text_emb_dims"] if text else None,
        fusion=FusionSpec(kind=fusion["fusion_type"], **transformer),
    )


def discriminator(golden: Golden) -> OfficialDiscriminator:
    """The network of `meta`, with its random weights."""
    spec = spec_of(golden.require("config"))
    return load_module(lambda: OfficialDiscriminator(spec, rngs=param_keys(0)), golden.weights())


def check(golden: Golden) -> dict[str, Pair]:
    """Layouts differ by file: `meta` says which axes of video and audio are exchanged."""
    time_second = golden.require("video_channel_time_transpose")
    to_video = (0, 2, 3, 4, 1) if time_second else (0, 1, 3, 4, 2)
    if golden["audio"].ndim == 3:
        to_audio = (0, 2, 1)
    else:
        to_audio = (0, 3, 2, 1) if golden.require("audio_spatial_transpose") else (0, 2, 3, 1)
    video, audio = golden["video"].transpose(to_video), golden["audio"].transpose(to_audio)
    text = [golden[f"{name}_text"] for name in ("video", "audio") if f"{name}_text" in golden]

    graphdef, params = nnx.split(discriminator(golden))

    @jax.jit
    def run(params, video, audio, t, *text):
        def total(video, audio):
            logit = nnx.merge(graphdef, params)(video, audio, t, *text)
            ratio = log_ratio(logit, "official")
            return ratio.sum(), (logit, ratio)

        return jax.grad(total, argnums=(0, 1), has_aux=True)(video, audio)

    t = jnp.asarray(golden["timesteps"], jnp.int32)
    gradients, (logit, ratio) = run(params, video, audio, t, *text)
    got = {"logit": logit, "prob": jax.nn.sigmoid(logit), "logit_exp": ratio}
    pairs = {name: Pair(np.asarray(x), golden[name], FORWARD) for name, x in got.items()}
    for name, gradient, axes in zip(
        ("video", "audio"), gradients, (to_video, to_audio), strict=True
    ):
        factor = golden["score_factor"].reshape(-1, *[1] * (gradient.ndim - 1))
        residual = (factor * np.asarray(gradient)).transpose(np.argsort(axes))
        pairs[f"residual_{name}"] = Pair(residual, golden[f"residual_{name}"], GRADIENT)
    return pairs
