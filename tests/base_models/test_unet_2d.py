# SPDX-License-Identifier: Apache-2.0
"""The 2-D U-Net against diffusers, its names at the released sizes, precision, memory, errors."""

import dataclasses
import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmdisco_jax.base_models.unet_2d import UNet2D
from mmdisco_jax.base_models.unet_2d_spec import PRESETS, UNet2DSpec, spec_from_config
from tests.support.randoms import random_module
from tests.support.unets import (
    finite,
    names,
    normal,
    num_parameters,
    parity,
    randomise,
    rngs,
    with_gradient,
)

# As AudioLDM: the class beside the time, each second attention on the picture itself.
AUDIO = {
    "in_channels": 4,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": (8, 16),
    "attention_head_dim": 2,
    "class_embed_type": "simple_projection",
    "projection_class_embeddings_input_dim": 6,
    "class_embeddings_concat": True,
}
# As Stable Diffusion 2: linear projections, heads and depths by level, text.
TEXT = {
    "block_out_channels": (8, 16),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": (1, 2),
    "transformer_layers_per_block": (1, 2),
    "norm_num_groups": 4,
    "cross_attention_dim": 6,
    "attention_head_dim": (1, 4),
    "use_linear_projection": True,
}
# What no released file combines: levels that attend on one way only, a middle without a second
# attention, the class added to the time, sines first.
OTHER = {
    "in_channels": 3,
    "out_channels": 5,
    "block_out_channels": (8, 8, 16),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "norm_eps": 1e-2,
    "cross_attention_dim": (6, 6, None),
    "attention_head_dim": (2, 1, 4),
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "class_embed_type": "simple_projection",
    "projection_class_embeddings_input_dim": 5,
}
T = np.array([3, 811], np.int32)


def reference(config: dict[str, Any]) -> Any:
    importlib.import_module("torch")
    unets = importlib.import_module("diffusers.models.unets.unet_2d_condition")
    return unets.UNet2DConditionModel(**config)


@pytest.mark.parametrize(
    ("config", "inputs"),
    [
        # Extents that do not halve evenly, as those of 2 s of sound.
        pytest.param(
            AUDIO, (normal("x", 2, 7, 4, 4), T, None, normal("label", 2, 6)), id="audioldm"
        ),
        pytest.param(
            TEXT,
            (normal("x", 2, 4, 6, 4), T, normal("text", 2, 5, 6), None),
            id="text",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            OTHER,
            (
                normal("x", 2, 7, 6, 3),
                np.array([0.5, 811.25], np.float32),
                normal("text", 2, 5, 6),
                normal("label", 2, 5),
            ),
            id="other",
        ),
    ],
)
def test_prediction_and_input_gradient_are_diffusers(config: dict, inputs: tuple):
    network = reference(config)
    spec = spec_from_config(dict(network.config))
    errors = parity(network, lambda: UNet2D(spec, rngs=rngs()), randomise(network), *inputs)
    assert errors.forward < 1e-4
    assert errors.gradient < 1e-3


RELEASED = {
    "stable_diffusion_1_5": ({"cross_attention_dim": 768}, 859_520_964),
    "audioldm_m_full": (
        {
            "in_channels": 8,
            "out_channels": 8,
            "block_out_channels": (192, 384, 576, 960),
            "down_block_types": ("DownBlock2D", *["CrossAttnDownBlock2D"] * 3),
            "up_block_types": (*["CrossAttnUpBlock2D"] * 3, "UpBlock2D"),
            "cross_attention_dim": (192, 384, 576, 960),
            "class_embed_type": "simple_projection",
            "projection_class_embeddings_input_dim": 512,
            "class_embeddings_concat": True,
        },
        415_954_568,
    ),
}


@pytest.mark.parametrize("name", RELEASED)
def test_names_shapes_and_count_at_the_released_sizes(name: str):
    torch = importlib.import_module("torch")
    config, count = RELEASED[name]
    with torch.device("meta"):
        network = reference(config)
    assert spec_from_config(dict(network.config)) == PRESETS[name]

    def make():
        return UNet2D(PRESETS[name], rngs=rngs())

    shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    assert names(make) == shapes
    wanted = sum(p.numel() for p in network.parameters())
    assert num_parameters(make) == wanted == count


def test_the_defaults_of_a_config_are_diffusers():
    """An old config.json lacks keys; what stands for them is what diffusers takes."""
    torch = importlib.import_module("torch")
    with torch.device("meta"):
        network = reference({})
    assert spec_from_config({}) == spec_from_config(dict(network.config))


# Two levels, one of which attends, and a class: all kinds of layers at little to compile.
NARROW = UNet2DSpec(
    in_channels=4,
    widths=(8, 16),
    num_layers=(1, 1),
    down_attention=(False, True),
    up_attention=(False, True),
    num_heads=(2, 2),
    context_dims=(6, 6),
    num_transformers=(1, 1),
    num_groups=4,
    class_dim=5,
)


def narrow_inputs() -> tuple[jax.Array, ...]:
    arrays = (normal("x", 2, 4, 4, 4), T, normal("text", 2, 3, 6), normal("label", 2, 5))
    return tuple(map(jnp.asarray, arrays))


def merged(spec: UNet2DSpec) -> UNet2D:
    """Random parameters; those of one spec are those of another that only computes otherwise."""
    return random_module(lambda: UNet2D(spec, rngs=rngs()))


@pytest.mark.slow
def test_bfloat16_is_near_float32_and_its_gradient_finite():
    run = with_gradient(
        merged(dataclasses.replace(NARROW, compute_dtype="bfloat16", remat="attention"))
    )
    x, *others = narrow_inputs()
    got, _ = run(x, *others)
    wanted = jax.jit(merged(NARROW))(x, *others)
    error = jnp.linalg.norm(got - wanted) / jnp.linalg.norm(wanted)
    assert got.dtype == jnp.float32
    assert 1e-5 < error < 0.03
    for picture in (x, 1e4 * x, jnp.zeros_like(x), jnp.full_like(x, 300.0)):
        assert finite(*run(picture, *others))


def test_inputs_that_do_not_fit():
    model = nnx.eval_shape(lambda: UNet2D(NARROW, rngs=rngs()))
    x, t, text, label = narrow_inputs()
    plain = nnx.eval_shape(
        lambda: UNet2D(dataclasses.replace(NARROW, context_dims=(None, None)), rngs=rngs())
    )
    for call, message in (
        (lambda: model(x[..., :3], t, text, label), r"x has shape .* c=4"),
        (lambda: model(x[0], t, text, label), r"it must be \[b h w c\]"),
        (lambda: model(x, t[:1], text, label), r"t has shape \(1,\)"),
        (lambda: model(x, t, None, label), r"context is None, .* d=6"),
        (lambda: model(x, t, text[..., :5], label), r"context has shape \(2, 3, 5\)"),
        (lambda: model(x, t, text[:1], label), "context has shape"),
        (lambda: model(x, t, text), r"class_labels has shape None; .* \(2, 5\)"),
        (lambda: model(x, t, text, label[:, :4]), r"class_labels has shape \(2, 4\)"),
        (lambda: plain(x, t, text, label), "takes no context, pass None"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"act_fn": "mish"}, "act_fn='mish', and this port has act_fn='silu'"),
        ({"class_embed_type": "timestep"}, "class_embed_type='timestep'"),
        ({"class_embed_type": "simple_projection"}, "projection_class_embeddings_input_dim"),
        ({"addition_embed_type": "text_time"}, "addition_embed_type='text_time'"),
        ({"num_experts": 3}, "unknown key num_experts=3"),
        ({"down_block_types": ["AttnDownBlock2D"] * 4}, "down_block_types has .*AttnDownBlock2D"),
        ({"layers_per_block": [2, 2]}, r"layers_per_block is \[2, 2\]; .* list of 4"),
        ({"transformer_layers_per_block": [[1, 1]] * 4}, "layers differ among themselves"),
        ({"attention_head_dim": 7}, "do not divide into num_heads 7"),
        ({"norm_num_groups": 33}, "320 channels cannot form 33 groups"),
        ({"class_embeddings_concat": True}, "class_concat needs a class embedding"),
        ({"block_out_channels": [320, 0, 640, 640]}, "widths .* at least 1"),
        ({"down_block_types": ["DownBlock2D"] * 3}, "down_attention .* entry for each level"),
    ],
)
def test_configs_that_the_port_does_not_have(config: dict, message: str):
    with pytest.raises(ValueError, match=message):
        spec_from_config(config)


@pytest.mark.parametrize("options", [{"remat": "some"}, {"compute_dtype": "float16"}])
def test_bad_options(options: dict):
    with pytest.raises(ValueError, match="choose one of"):
        spec_from_config({}, **options)
