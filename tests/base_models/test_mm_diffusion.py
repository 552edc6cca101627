# SPDX-License-Identifier: Apache-2.0
"""The coupled U-Net beyond the golden files: names, rematerialisation, dropout, loading, errors."""

import dataclasses
import functools
import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmdisco_jax.base_models import BASE_MODELS
from mmdisco_jax.base_models.mm_diffusion_blocks import (
    Context,
    CrossAttentionBlock,
    ResBlock,
    call_block,
)
from mmdisco_jax.base_models.mm_diffusion_spec import (
    PRESETS,
    MMDiffusionSpec,
    draw_shifts,
)
from mmdisco_jax.base_models.mm_diffusion_unet import MultimodalUNet
from mmdisco_jax.nn.init import param_keys, skeleton
from mmdisco_jax.nn.layers import Dropout
from mmdisco_jax.porting.load import load_module, strip_prefix, to_torch
from mmdisco_jax.porting.names import torch_tensor
from mmdisco_jax.types import ClipFormat
from tests.support.randoms import random_module, random_params

KEYS = Path(__file__).parents[1] / "golden" / "keys" / "mmdiffusion_base64.json"
SMALL = MMDiffusionSpec(
    model_channels=4,
    num_groups=2,
    channel_mult=(1, 2),
    num_res_blocks=1,
    video_attention_resolutions=(2,),
    audio_attention_resolutions=(2,),
    cross_attention_resolutions=(2,),
    cross_attention_windows=(2,),
    num_heads=2,
    num_head_channels=4,
    dropout=0.3,
)
T = jnp.array([3, 700])


@functools.cache
def _abstract(spec: MMDiffusionSpec = SMALL) -> tuple[nnx.GraphDef, nnx.State]:
    return skeleton(MultimodalUNet, spec)


def _pair(batch: int = 2, frames: int = 4, side: int = 4, length: int = 24) -> dict:
    rng = np.random.default_rng(1)
    shapes = {"video": (batch, frames, side, side, 3), "audio": (batch, length, 1)}
    return {m: jnp.asarray(rng.standard_normal(s), jnp.float32) for m, s in shapes.items()}


def _shapes(spec: MMDiffusionSpec, x_t: dict, **options) -> dict:
    graphdef, params = _abstract(spec)
    eps = jax.eval_shape(lambda p: nnx.merge(graphdef, p)(x_t, T, **options), params)
    return {m: (x.shape, x.dtype) for m, x in eps.items()}


def test_the_papers_network_has_the_released_names_and_shapes():
    _, params = _abstract(PRESETS["base64"])
    shapes = {}
    for path, leaf in nnx.to_flat_state(params):
        name, axes = torch_tensor(path, leaf.ndim)
        shapes[name] = [leaf.shape[axis] for axis in axes]
    assert shapes == json.loads(KEYS.read_text())
    assert len(shapes) == 1046
    assert sum(map(math.prod, shapes.values())) == 133_675_524


def test_the_papers_network_dilates_and_crosses_as_measured():
    """Per block, read off the official network: dilations and windows have no parameters."""
    network = nnx.merge(*_abstract(PRESETS["base64"]))
    layers = [
        layer
        for blocks in (network.input_blocks, [network.middle_blocks], network.output_blocks)
        for block in blocks
        for layer in block
    ]
    res: list[Any] = [layer for layer in layers if isinstance(layer, ResBlock)]
    down, up = [2, 4, 8, 16, 32, 64, 128, 256, 512, 1, 2], [2, 1, 512, 256, 256, 128, 64, 32]
    dilations = [block.audio_in_layers[2].audio_conv.dilation for block in res]
    assert dilations == [*down, 4, 4, *up, 32, 16, 8, 4, 4, 2, 1]
    assert [block.resample for block in res].count("down") == 3
    crossing = [layer for layer in layers if isinstance(layer, CrossAttentionBlock)]
    assert [block.window for block in crossing] == list(PRESETS["base64"].windows)
    assert [block.index for block in crossing] == list(range(16))
    heads = [4] * 2 + [6] * 2 + [8] * 2 + [8] + [8] * 3 + [6] * 3 + [4] * 3
    assert [block.num_heads for block in crossing] == heads


def _stage(remat: str) -> tuple[nnx.GraphDef, nnx.State]:
    """A residual block with attention and dropout, and a cross-attention block."""
    spec = dataclasses.replace(SMALL, remat=remat, video_type="3d")

    def make() -> nnx.List:
        rngs = param_keys(0)
        res = ResBlock(4, 4, spec, index=0, dilation=2, audio_attention=True, rngs=rngs)
        return nnx.List([res, CrossAttentionBlock(4, spec, index=0, window=2, rngs=rngs)])

    return nnx.split(nnx.eval_shape(make))


@functools.cache
def _stage_gradients(remat: str):
    """Jitted (params, video, audio, context) -> gradients of a loss by parameters and input."""
    graphdef, _ = _stage(remat)

    def loss(params, video, audio, context):
        for block in nnx.merge(graphdef, params):
            video, audio = call_block(block, remat, video, audio, context)
        return jnp.square(video).mean() + jnp.square(audio).mean()

    return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))


# "blocks" remakes all that "attention" does, and more.
@pytest.mark.parametrize("remat", ["blocks", pytest.param("attention", marks=pytest.mark.slow)])
def test_rematerialised_gradients_belong_to_the_loss(remat: str):
    """Same shift, same dropout, hence the same gradients; another shift or key gives others."""
    rng = np.random.default_rng(0)
    shapes = {"video": (2, 3, 2, 2, 4), "audio": (2, 6, 4), "emb": (2, 4)}
    video, audio, emb = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in shapes.values())
    params, key = random_params(_stage("none")[1]), jax.random.key(5)
    context = Context(emb, jnp.array([1]), key)
    plain, remade = _stage_gradients("none"), _stage_gradients(remat)
    assert "remat" in str(jax.make_jaxpr(remade)(params, video, audio, context))
    wanted = plain(params, video, audio, context)
    assert _distance(remade(params, video, audio, context), wanted) <= 1e-6
    other_key = context._replace(dropout_key=jax.random.key(6))
    for other in (context._replace(shifts=jnp.array([0])), other_key):
        assert _distance(remade(params, video, audio, other), wanted) > 1e-3


@pytest.mark.slow
def test_rematerialised_gradients_of_the_whole_network():
    params, x_t = random_params(_abstract()[1]), _pair()

    def gradients(remat: str):
        graphdef, _ = _abstract(dataclasses.replace(SMALL, remat=remat))

        def loss(params, x_t, shifts, key):
            eps = nnx.merge(graphdef, params)(x_t, T, shifts=shifts, dropout_key=key)
            return sum(jnp.square(x - x_t[m][..., ::-1]).mean() for m, x in eps.items())

        return jax.jit(jax.grad(loss, argnums=(0, 1)))

    shifts, key = jnp.array([2, 0, 1, 0]), jax.random.key(5)
    plain = gradients("none")
    wanted = plain(params, x_t, shifts, key)
    for remat in ("attention", "blocks"):
        assert _distance(gradients(remat)(params, x_t, shifts, key), wanted) <= 1e-6
    for other in ((jnp.zeros(4, jnp.int32), key), (shifts, jax.random.key(6))):
        assert _distance(plain(params, x_t, *other), wanted) > 1e-3


def _distance(got, want) -> float:
    """Relative difference of all numbers together."""
    pairs = list(zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True))
    error = sum(float(jnp.square(a - b).sum()) for a, b in pairs)
    return math.sqrt(error / sum(float(jnp.square(b).sum()) for _, b in pairs))


@functools.cache
def _forward(spec: MMDiffusionSpec = SMALL):
    graphdef, _ = _abstract(spec)
    return jax.jit(
        lambda params, x_t, t, shifts: nnx.merge(graphdef, params)(x_t, t, shifts=shifts)
    )


def test_a_sample_does_not_depend_on_its_batch():
    # One level: compiling takes most of the time, and more levels mix samples no more.
    levels = {"video_attention_resolutions": (), "audio_attention_resolutions": ()}
    flat = dataclasses.replace(
        SMALL, channel_mult=(1,), cross_attention_resolutions=(1,), resblock_updown=False, **levels
    )
    params, x_t, shifts = random_params(_abstract(flat)[1]), _pair(), jnp.array([1, 0, 2, 1])
    eps = _forward(flat)(params, x_t, T, shifts)
    changed = {m: x.at[1].multiply(3) for m, x in x_t.items()}
    other = _forward(flat)(params, changed, T.at[1].set(9), shifts)
    for m in eps:
        np.testing.assert_allclose(eps[m][0], other[m][0], rtol=1e-5, atol=1e-5)
        assert float(jnp.abs(eps[m][1] - other[m][1]).max()) > 1e-3


@pytest.mark.slow
def test_bfloat16_stays_near_float32():
    spec = dataclasses.replace(SMALL, compute_dtype="bfloat16")
    params, x_t, shifts = random_params(_abstract()[1]), _pair(), jnp.array([1, 0, 2, 1])
    exact, rough = (_forward(s)(params, x_t, T, shifts) for s in (SMALL, spec))
    for m in exact:
        assert rough[m].dtype == jnp.float32
        error = float(jnp.linalg.norm(rough[m] - exact[m]) / jnp.linalg.norm(exact[m]))
        assert 1e-4 < error < 0.03  # bfloat16 keeps 8 bits


def test_dropout_only_with_a_key():
    x, key = jnp.ones((100, 100)), jax.random.key(0)
    dropout = Dropout(0.3)
    assert dropout(x) is x
    assert Dropout(0.0)(x, key) is x
    dropped = dropout(x, key)
    np.testing.assert_array_equal(dropped, dropout(x, key))
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.7)}
    assert float(dropped.mean()) == pytest.approx(1, abs=0.02)


def test_shifts_are_uniform_within_each_window():
    spec = dataclasses.replace(SMALL, cross_attention_windows=(3,))
    assert spec.windows == (3, None, 3, 3)
    keys = jax.random.split(jax.random.key(0), 3000)
    drawn = np.asarray(jax.vmap(lambda key: draw_shifts(spec, key, 6))(keys))
    assert drawn.dtype == np.int32
    assert not drawn[:, 1].any()  # the middle sees all frames
    for block in (0, 2, 3):
        values, counts = np.unique(drawn[:, block], return_counts=True)
        assert values.tolist() == [0, 1, 2, 3]
        np.testing.assert_allclose(counts / 3000, 0.25, atol=0.04)
    assert (drawn[:, 0] != drawn[:, 2]).mean() > 0.6
    still = dataclasses.replace(spec, cross_attention_shift=False)
    assert not draw_shifts(still, keys[0], 6).any()
    with pytest.raises(ValueError, match="window of 3 frames does not fit a clip of 2"):
        draw_shifts(spec, keys[0], 2)


@pytest.fixture(scope="module")
def official() -> dict[str, np.ndarray]:
    """A state dict of the small network, saved as data-parallel training does."""
    network = random_module(lambda: MultimodalUNet(SMALL, rngs=param_keys(0)))
    return {f"module.{name}": x for name, x in to_torch(nnx.split(network)[1]).items()}


def _load(tensors) -> MultimodalUNet:
    return load_module(
        lambda: MultimodalUNet(SMALL, rngs=param_keys(0)), strip_prefix(tensors, "module.")
    )


def test_conversion_there_and_back_is_bit_exact(official):
    back = to_torch(nnx.split(_load(official))[1])
    assert {f"module.{name}" for name in back} == official.keys()
    for name, x in back.items():
        np.testing.assert_array_equal(x, official[f"module.{name}"])


def test_every_misfit_is_named(official):
    bad = dict(official)
    del bad["module.middle_blocks.1.v_qkv.bias"]
    bad["module.stranger.weight"] = np.zeros(3)
    bad["module.time_embed.0.weight"] = np.zeros((4, 5))
    with pytest.raises(ValueError) as caught:
        _load(bad)
    message = str(caught.value)
    assert "missing: middle_blocks.1.v_qkv.bias" in message
    assert "unexpected: stranger.weight" in message
    assert "wrong shape: time_embed.0.weight is (4, 5), the model has (4, 4)" in message
    bad = dict(official)
    del bad["module.middle_blocks.1.v_qkv.bias"]
    with pytest.raises(ValueError, match=r"missing: middle_blocks\.1\.v_qkv\.bias$"):
        _load(bad)


def test_any_clip_that_the_levels_divide():
    """Six frames over 5 audio tokens fail at the coarse level; 7 tokens and odd frames do not."""
    for frames, length in ((5, 28), (2, 40)):
        x_t = _pair(frames=frames, side=6, length=length)
        want = {m: (x.shape, jnp.float32) for m, x in x_t.items()}
        assert _shapes(SMALL, x_t) == want
    wide = dataclasses.replace(SMALL, learn_sigma=True, channel_mult=(1.5, 2), num_groups=1)
    x_t = _pair()
    want = {m: ((*x.shape[:-1], 2 * x.shape[-1]), jnp.float32) for m, x in x_t.items()}
    assert _shapes(wide, x_t) == want
    with pytest.raises(ValueError, match="5 audio tokens cannot form 6 segments"):
        _shapes(SMALL, _pair(frames=6, length=20))


def test_bad_inputs_are_named():
    x_t = _pair()
    with pytest.raises(ValueError, match=r"video has shape .* must be \[b f h w c\] with c=3"):
        _shapes(SMALL, {**x_t, "video": x_t["video"][..., :1]})
    with pytest.raises(ValueError, match=r"audio has shape \(2, 26, 1\).* multiples of \[4\]"):
        _shapes(SMALL, _pair(length=26))
    with pytest.raises(ValueError, match=r"x_t has \['video'\]"):
        _shapes(SMALL, {"video": x_t["video"]})
    with pytest.raises(ValueError, match="one shift for each of the 4 cross-attention blocks"):
        _shapes(SMALL, x_t, shifts=jnp.zeros(2, jnp.int32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video_type": "4d"}, "video_type is '4d'; choose one of .*3d"),
        ({"remat": "some"}, "remat is 'some'; choose one of .*blocks"),
        ({"compute_dtype": "float16"}, "compute_dtype is 'float16'"),
        ({"dropout": 1.0}, r"dropout is 1.0; a rate must be in \[0, 1\)"),
        ({"num_res_blocks": 0}, "num_res_blocks is 0; it must be at least 1"),
        ({"channel_mult": ()}, r"channel_mult \(\) .* at least one level"),
        ({"resblock_updown": False}, "resblock_updown=False cannot have 2 levels"),
        ({"video_attention_resolutions": (2, 8)}, r"has \[8\], where no level is: .*\[1, 2\]"),
        ({"cross_attention_windows": (1, 4)}, "must give one window for each of"),
        ({"cross_attention_windows": (0,)}, "cross_attention_windows has 0"),
        ({"num_heads": 3}, "8 channels cannot form 3 attention heads"),
        ({"num_head_channels": 3}, "num_head_channels 3 must divide the width 8"),
        ({"num_groups": 3}, "4 channels cannot form 3 groups"),
    ],
)
def test_a_bad_option_is_named(change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        _abstract(dataclasses.replace(SMALL, **change))


def test_the_registry_builds_it():
    network = {field.name: getattr(SMALL, field.name) for field in dataclasses.fields(SMALL)}
    codec = {"audio": {"name": "waveform"}, "video": {"name": "pixels"}}
    recipe = BASE_MODELS.get("mm_diffusion")
    base = recipe(name="joint", clip=ClipFormat(), codec=codec, network=network)
    graphdef, init = base.definition()
    built = nnx.merge(graphdef, jax.eval_shape(init, jax.random.key(0)))
    assert isinstance(built, MultimodalUNet)
    # The channels follow from the codecs.
    assert built.spec == dataclasses.replace(SMALL, audio_channels=1, video_channels=3)
