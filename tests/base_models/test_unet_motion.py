# SPDX-License-Identifier: Apache-2.0
"""The motion U-Net against diffusers, the merge of an adapter, its names, precision and errors."""

import dataclasses
import functools
import importlib
from typing import Any

import jax
import jax.extend as jex
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmdisco_jax.base_models import unet_2d_spec
from mmdisco_jax.base_models.unet_2d_layers import SinusoidalPositionalEmbedding
from mmdisco_jax.base_models.unet_2d_spec import MotionSpec, UNet2DSpec
from mmdisco_jax.base_models.unet_motion import (
    PRESETS,
    UNetMotion,
    UNetMotionSpec,
    merge_adapter,
    spec_from_config,
    spec_with_adapter,
)
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

T = np.array([3, 811], np.int32)
# As an old adapter: no motion in the middle.
OLD = {
    "block_out_channels": (8, 16),
    "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion"),
    "up_block_types": ("UpBlockMotion", "CrossAttnUpBlockMotion"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 6,
    "num_attention_heads": 2,
    "motion_num_attention_heads": 4,
    "use_motion_mid_block": False,
    "motion_max_seq_length": 5,
}
# What no released file combines: depths and heads by level, everywhere above one.
DEEP = {
    **OLD,
    "in_channels": 3,
    "layers_per_block": (2, 1),
    "transformer_layers_per_block": (2, 1),
    "transformer_layers_per_mid_block": 2,
    "temporal_transformer_layers_per_block": (1, 2),
    "temporal_transformer_layers_per_mid_block": (2,),
    "num_attention_heads": (4, 1),
    "motion_num_attention_heads": (1, 8),
    "use_linear_projection": True,
    "use_motion_mid_block": True,
}
# A 2-D U-Net and its adapter, merged by diffusers.
PICTURE = {
    "block_out_channels": (8, 16),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 6,
    "attention_head_dim": 2,
}
ADAPTER = {
    "block_out_channels": (8, 16),
    "motion_layers_per_block": 1,
    "motion_num_attention_heads": 4,
    "motion_norm_num_groups": 4,
    "motion_max_seq_length": 5,
}


def diffusers() -> Any:
    importlib.import_module("torch")
    return importlib.import_module("diffusers.models.unets.unet_motion_model")


def inputs(channels: int, height: int = 5) -> tuple:
    """x, t, context, labels: three frames of 5 x 4, which does not halve evenly."""
    return normal("clip", 2, 3, height, 4, channels), T, normal("text", 2, 3, 6), None


@pytest.mark.parametrize(
    "config",
    [pytest.param(OLD, id="old"), pytest.param(DEEP, id="deep", marks=pytest.mark.slow)],
)
def test_prediction_and_input_gradient_are_diffusers(config: dict):
    network = diffusers().UNetMotionModel(**config)
    spec = spec_from_config(dict(network.config))
    given = inputs(spec.picture.in_channels)
    errors = parity(network, lambda: UNetMotion(spec, rngs=rngs()), randomise(network), *given)
    assert errors.forward < 1e-4
    assert errors.gradient < 1e-3


@pytest.fixture(scope="module")
def merged() -> tuple[Any, UNetMotionSpec, dict[str, np.ndarray]]:
    """Diffusers' merge, and our spec and tensors."""
    module = diffusers()
    picture = module.UNet2DConditionModel(**PICTURE)
    adapter = module.MotionAdapter(**ADAPTER)
    tensors = merge_adapter(randomise(picture), randomise(adapter))
    spec = spec_with_adapter(
        unet_2d_spec.spec_from_config(dict(picture.config)), dict(adapter.config)
    )
    return module.UNetMotionModel.from_unet2d(picture, adapter), spec, tensors


def test_a_merged_adapter_holds_what_diffusers_does(merged: tuple):
    network, spec, tensors = merged
    wanted = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    assert tensors.keys() == wanted.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, wanted[name], err_msg=name)
    assert spec == spec_from_config(dict(network.config))


@pytest.mark.slow
def test_a_merged_adapter_predicts_as_diffusers(merged: tuple):
    network, spec, tensors = merged
    errors = parity(network, lambda: UNetMotion(spec, rngs=rngs()), tensors, *inputs(4))
    assert errors.forward < 1e-4
    assert errors.gradient < 1e-3


def test_positions_are_diffusers():
    torch = importlib.import_module("torch")
    official = importlib.import_module("diffusers.models.embeddings").SinusoidalPositionalEmbedding
    ours = SinusoidalPositionalEmbedding(12, 7)
    np.testing.assert_allclose(ours.pe[...], official(12, 7).pe.numpy(), rtol=1e-6, atol=1e-6)
    x = normal("x", 2, 5, 12)
    np.testing.assert_allclose(ours(jnp.asarray(x)), official(12, 7)(torch.tensor(x)), atol=1e-6)


def test_names_shapes_and_count_at_the_released_size():
    """Stable Diffusion 1.5 with the motion adapter v1-5-2, whose config is diffusers' default."""
    torch, module = importlib.import_module("torch"), diffusers()
    with torch.device("meta"):
        network = module.UNetMotionModel(cross_attention_dim=768)
        adapter = module.MotionAdapter()
    spec = spec_from_config(dict(network.config))
    assert spec == PRESETS["animatediff_1_5_2"]
    assert spec == spec_with_adapter(UNet2DSpec(), dict(adapter.config))

    def make():
        return UNetMotion(spec, rngs=rngs())

    shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    assert names(make) == shapes
    wanted = sum(p.numel() for p in network.parameters())
    assert num_parameters(make) == wanted == 1_312_730_244


def test_the_defaults_of_a_config_are_diffusers():
    torch, module = importlib.import_module("torch"), diffusers()
    with torch.device("meta"):
        network, adapter = module.UNetMotionModel(), module.MotionAdapter()
    assert spec_from_config({}) == spec_from_config(dict(network.config))
    picture = UNet2DSpec()
    assert spec_with_adapter(picture, {}) == spec_with_adapter(picture, dict(adapter.config))


NARROW = UNetMotionSpec(
    picture=UNet2DSpec(
        widths=(8,),
        num_layers=(1,),
        down_attention=(True,),
        up_attention=(False,),
        num_heads=(2,),
        context_dims=(6,),
        num_transformers=(1,),
        num_groups=4,
    ),
    motion=MotionSpec(num_heads=(2,), num_layers=(1,), max_frames=4),
)


def unet(**options: str) -> UNetMotion:
    picture = dataclasses.replace(NARROW.picture, **options)
    return UNetMotion(dataclasses.replace(NARROW, picture=picture), rngs=rngs())


def narrow(**options: str) -> UNetMotion:
    """Random parameters, the same whatever the options."""
    return random_module(lambda: unet(**options))


@pytest.mark.slow
def test_bfloat16_is_near_float32_and_its_gradient_finite():
    x, t, text = map(jnp.asarray, inputs(4)[:3])
    run = with_gradient(narrow(compute_dtype="bfloat16", remat="blocks"))
    got, _ = run(x, t, text)
    wanted = jax.jit(narrow())(x, t, text)
    error = jnp.linalg.norm(got - wanted) / jnp.linalg.norm(wanted)
    assert got.dtype == jnp.float32
    assert 1e-5 < error < 0.03
    for clip in (x, 1e4 * x, jnp.zeros_like(x)):
        assert finite(*run(clip, t, text))


def primitives(dtype: str = "float32", **options: str) -> list[jex.core.JaxprEqn]:
    """The outermost operations of a prediction with parameters of that dtype."""
    graphdef, params = nnx.split(nnx.eval_shape(lambda: unet(**options)))
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), params)
    run = functools.partial(lambda graphdef, params, *x: nnx.merge(graphdef, params)(*x), graphdef)
    return jax.make_jaxpr(run)(params, *inputs(4)[:3]).eqns


def test_each_policy_recomputes_its_layers():
    """1 + 2 + 2 residual blocks (down, middle, up), 1 + 1 + 0 attentions, 1 + 1 + 2 motions."""
    found = {
        policy: sum("remat" in str(e.primitive) for e in primitives(remat=policy))
        for policy in unet_2d_spec.REMAT
    }
    assert found == {"none": 0, "attention": 6, "blocks": 11}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bfloat16_is_for_products_and_float32_for_the_rest(dtype: str):
    """Whatever the parameters have."""
    dtypes = {}
    for equation in primitives(dtype, compute_dtype="bfloat16"):
        shapes: list[Any] = [variable.aval for variable in equation.invars]
        given = {shape.dtype.name for shape in shapes}
        dtypes.setdefault(str(equation.primitive), []).append(given)
    # The first convolution and two of each residual block, and the last, which is float32.
    assert dtypes["conv_general_dilated"] == [{"bfloat16"}] * 11 + [{"float32"}]
    for name in ("exp", "sqrt", "reduce_sum"):  # softmax, and the statistics of the norms
        assert all(given == {"float32"} for given in dtypes[name])


def test_inputs_that_do_not_fit():
    model: Any = nnx.eval_shape(lambda: UNetMotion(NARROW, rngs=rngs()))
    x, t, text, _ = inputs(4)
    long = np.repeat(x, 2, axis=1)
    for call, message in (
        (lambda: model(x[:, 0], t, text), r"it must be \[b f h w c\] with c=4"),
        (lambda: model(long, t, text), "x has 6 frames, .* know 4 positions"),
        (lambda: model(x, np.repeat(t, 3), text), r"t has shape \(6,\); it must be \[b\], b=2"),
        (lambda: model(x, t, np.repeat(text, 3, 0)), r"context has shape \(6, 3, 6\)"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_tensors_that_do_not_merge():
    motion = "down_blocks.0.motion_modules.0.norm.weight"
    for picture, adapter, message in (
        ({"conv_in.weight": 0}, {motion: 0, "conv_in.weight": 0}, "motion modules only.*conv_in"),
        ({"conv_in.weight": 0}, {}, "holds nothing"),
        ({motion: 0}, {motion: 0}, "already has motion modules"),
    ):
        with pytest.raises(ValueError, match=message):
            merge_adapter(picture, adapter)


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        ({"block_out_channels": [320, 640, 1280, 640]}, r"block_out_channels=\(320, 640, 1280, 64"),
        ({"motion_layers_per_block": 1}, r"motion_layers_per_block=\(1, 1, 1, 1\)"),
        ({"motion_norm_num_groups": 8}, "motion_norm_num_groups=8, and the 2-D U-Net 32"),
        ({"conv_in_channels": 9}, "conv_in_channels=9"),
        ({"motion_num_attention_heads": 7}, "do not fit motion modules of 7 heads"),
        ({"motion_max_seq_length": 0}, "max_frames is 0"),
        ({"use_motion": True}, "unknown key use_motion"),
    ],
)
def test_adapters_that_do_not_fit(adapter: dict, message: str):
    with pytest.raises(ValueError, match=message):
        spec_with_adapter(UNet2DSpec(), adapter)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"mid_block_layers": 2}, "mid_block_layers=2"),
        ({"temporal_transformer_layers_per_block": [[1, 1]] * 4}, "differ among themselves"),
        ({"temporal_transformer_layers_per_mid_block": [1, 1]}, "list of 1"),
        ({"up_block_types": ["UpBlock2D"] * 4}, "up_block_types has .*UpBlock2D"),
    ],
)
def test_configs_that_the_port_does_not_have(config: dict, message: str):
    with pytest.raises(ValueError, match=message):
        spec_from_config(config)
