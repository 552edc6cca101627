# SPDX-License-Identifier: Apache-2.0
"""The image U-Net and super-resolution beyond the golden file: names, options, dropout, errors."""

import dataclasses
import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmdisco_jax.base_models.image_unet import ImageUNet, ImageUNetSpec
from mmdisco_jax.base_models.image_unet_blocks import (
    AttentionBlock,
    BlockSpec,
    Downsample,
    ResBlock,
    Upsample,
)
from mmdisco_jax.base_models.super_resolution import (
    PRESETS,
    SuperResolution,
    bilinear,
    frame_denoiser,
    noise_half,
)
from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.nn.layers import Dropout
from mmdisco_jax.porting.load import to_torch
from mmdisco_jax.porting.names import torch_tensor
from mmdisco_jax.process.noising import noisy
from mmdisco_jax.process.schedules import linear
from tests.support.randoms import random_module

KEYS = Path(__file__).parents[1] / "golden" / "keys" / "mmdiffusion_sr64to256.json"
NARROW = ImageUNetSpec(
    in_channels=6,
    out_channels=6,
    model_channels=4,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_factors=(2,),
    num_heads=2,
    scale_shift_norm=True,
    resize_in_blocks=True,
    num_groups=2,
)


# One level without attention but in the middle: compiling takes most of the time.
FLAT = dataclasses.replace(NARROW, channel_mult=(1,), attention_factors=())
RNGS = functools.partial(param_keys, 0)


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def names(make: Callable[[], nnx.Module]) -> dict[str, list[int]]:
    """Official name -> PyTorch shape."""
    shapes = {}
    for path, leaf in nnx.to_flat_state(nnx.split(nnx.eval_shape(make))[1]):
        name, axes = torch_tensor(path, leaf.ndim)
        shapes[name] = [leaf.shape[axis] for axis in axes]
    return shapes


def test_names_shapes_and_count_are_the_released_ones():
    shapes = names(lambda: SuperResolution(PRESETS["sr64to256"], rngs=RNGS()))
    assert shapes == json.loads(KEYS.read_text())
    assert (len(shapes), sum(map(math.prod, shapes.values()))) == (566, 311_027_910)


def test_names_of_the_options_that_no_released_file_uses():
    """As the official modules call them: layers that resize, and class labels."""
    spec = dataclasses.replace(NARROW, resize_in_blocks=False, num_classes=3)
    shapes = names(lambda: ImageUNet(spec, rngs=RNGS()))
    assert shapes["input_blocks.2.0.op.weight"] == [4, 4, 3, 3]
    assert shapes["output_blocks.1.2.conv.weight"] == [8, 8, 3, 3]
    assert shapes["label_emb.weight"] == [3, 16]
    unlearned = names(lambda: ImageUNet(dataclasses.replace(spec, resize_conv=False), rngs=RNGS()))
    gone = {"input_blocks.2.0.op", "output_blocks.1.2.conv"}
    assert {name.rpartition(".")[0] for name in shapes.keys() - unlearned.keys()} == gone


@pytest.mark.parametrize("size", [(16, 24), (7, 10), (4, 3)])
def test_bilinear_is_pytorchs(size: tuple[int, int]):
    torch = pytest.importorskip("torch")
    x = normal(2, 5, 6, 3)
    channels_first = torch.tensor(np.asarray(x).transpose(0, 3, 1, 2))
    want = torch.nn.functional.interpolate(channels_first, size, mode="bilinear")
    got = bilinear(x, *size)
    np.testing.assert_allclose(got, want.numpy().transpose(0, 2, 3, 1), atol=1e-6)


def test_resizing_layers_are_pytorchs():
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    x = normal(1, 6, 4, 2)
    first = torch.tensor(np.asarray(x).transpose(0, 3, 1, 2))
    down = random_module(lambda: Downsample(2, use_conv=True, rngs=RNGS()))
    up = random_module(lambda: Upsample(2, use_conv=True, rngs=RNGS()), seed=1)
    tensors = [
        {name: torch.tensor(value) for name, value in to_torch(nnx.split(layer)[1]).items()}
        for layer in (down, up)
    ]
    double = f.interpolate(first, scale_factor=2, mode="nearest")
    pairs = [
        (down(x), f.conv2d(first, tensors[0]["op.weight"], tensors[0]["op.bias"], 2, 1)),
        (up(x), f.conv2d(double, tensors[1]["conv.weight"], tensors[1]["conv.bias"], 1, 1)),
        (Downsample(2, use_conv=False, rngs=RNGS())(x), f.avg_pool2d(first, 2)),
        (Upsample(2, use_conv=False, rngs=RNGS())(x), double),
    ]
    for got, want in pairs:
        np.testing.assert_allclose(got, want.numpy().transpose(0, 2, 3, 1), atol=1e-6)


def test_time_is_added_without_scale_shift_norm():
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    spec = BlockSpec(emb_dim=5, num_groups=2, scale_shift_norm=False, dropout=0)
    block = random_module(lambda: ResBlock(4, 6, spec, rngs=RNGS()))
    w = {name: torch.tensor(value) for name, value in to_torch(nnx.split(block)[1]).items()}
    x, emb = normal(2, 4, 4, 4), normal(2, 5, seed=1)

    def normed(value, name):
        return f.silu(f.group_norm(value, 2, w[f"{name}.weight"], w[f"{name}.bias"]))

    def conv(value, name, padding=1):
        return f.conv2d(value, w[f"{name}.weight"], w[f"{name}.bias"], padding=padding)

    first = torch.tensor(np.asarray(x).transpose(0, 3, 1, 2))
    hidden = conv(normed(first, "in_layers.0"), "in_layers.2")
    time = f.linear(
        f.silu(torch.tensor(np.asarray(emb))), w["emb_layers.1.weight"], w["emb_layers.1.bias"]
    )
    hidden = normed(hidden + time[:, :, None, None], "out_layers.0")
    want = conv(first, "skip_connection", 0) + conv(hidden, "out_layers.3")
    got = jax.jit(lambda x, emb: block(x, emb, None))(x, emb)
    np.testing.assert_allclose(got, want.numpy().transpose(0, 2, 3, 1), atol=1e-5)


def test_orders_of_qkv_differ_by_a_permutation_of_the_projection():
    heads, channels = 2, 6
    by_head = random_module(lambda: AttentionBlock(channels, 2, num_heads=heads, rngs=RNGS()))
    qkv_first = nnx.eval_shape(
        lambda: AttentionBlock(channels, 2, num_heads=heads, qkv_first=True, rngs=RNGS())
    )
    # Column [head, q/k/v, channel] of one is column [q/k/v, head, channel] of the other.
    columns = np.arange(3 * channels).reshape(heads, 3, -1).swapaxes(0, 1).reshape(-1)
    moved: Any = nnx.split(by_head)[1]
    for name in ("kernel", "bias"):
        moved["qkv"][name] = moved["qkv"][name].replace(moved["qkv"][name][...][..., columns])
    x = normal(2, 3, 4, channels)
    graphdef, _ = nnx.split(qkv_first)
    want, got = jax.jit(lambda x: (by_head(x), nnx.merge(graphdef, moved)(x)))(x)
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert jnp.abs(want - x).max() > 0.1


def test_dropout_is_of_its_rate_and_keeps_the_mean():
    x = jnp.full((100, 100), 3.0)
    dropout = Dropout(0.25)
    out = dropout(x, jax.random.key(0))
    assert abs(float((out == 0).mean()) - 0.25) < 0.02
    assert set(np.unique(out).tolist()) == {0.0, 4.0}
    assert dropout(x, None) is x
    assert Dropout(0.0)(x, jax.random.key(0)) is x


@pytest.fixture(scope="module")
def drawn() -> jax.Array:
    """The output for one picture and the keys and labels (0, 0), (0, 0), (1, 0), (0, 2)."""
    spec = dataclasses.replace(FLAT, dropout=0.5, num_classes=3)
    model = random_module(lambda: ImageUNet(spec, rngs=RNGS()))
    x, t = normal(1, 4, 4, 6), jnp.array([5])
    run = jax.vmap(lambda seed, y: model(x, t, y=y[None], key=jax.random.key(seed))[0])
    return jax.jit(run)(jnp.array([0, 0, 1, 0]), jnp.array([0, 0, 0, 2]))


def test_dropout_is_by_key(drawn: jax.Array):
    np.testing.assert_allclose(drawn[0], drawn[1], atol=1e-6)
    assert jnp.abs(drawn[0] - drawn[2]).max() > 1e-3


def test_labels_move_the_output_and_are_required_exactly_with_classes(drawn: jax.Array):
    assert jnp.abs(drawn[0] - drawn[3]).max() > 1e-3
    x, t, y = normal(1, 4, 4, 6), jnp.array([5]), jnp.array([0])
    labelled = dataclasses.replace(FLAT, num_classes=3)
    with pytest.raises(ValueError, match="y is required"):
        nnx.eval_shape(lambda: ImageUNet(labelled, rngs=RNGS())(x, t))
    with pytest.raises(ValueError, match="y is not accepted"):
        nnx.eval_shape(lambda: ImageUNet(FLAT, rngs=RNGS())(x, t, y=y))


def test_every_block_drops_by_a_key_of_its_own():
    model = random_module(lambda: ImageUNet(NARROW, rngs=RNGS()))
    keys = []
    for layers in (*model.input_blocks, model.middle_block, *model.output_blocks):
        for layer in layers:
            if isinstance(layer, ResBlock):
                layer.out_layers[2] = _Recorder(keys)

    @jax.jit
    def recorded(key):
        keys.clear()
        model(normal(1, 4, 4, 6), jnp.array([5]), key=key)
        return jnp.stack([jax.random.key_data(own) for own in keys])

    drawn = recorded(jax.random.key(0))
    # 1 down, 1 halving, 1 down, 2 in the middle, 2 + 2 up and 1 doubling.
    assert len(np.unique(drawn, axis=0)) == len(drawn) == 10


class _Recorder(Dropout):
    """Keeps the keys that it is given, and drops nothing."""

    def __init__(self, keys: list):
        super().__init__(0.0)
        self.record = keys.append

    def __call__(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        self.record(key)
        return x


def test_frames_are_pictures_with_the_time_of_their_clip():
    def model(x, t, low):  # as SuperResolution: pictures, a time each, and eps before the variance
        eps = x * t[:, None, None, None] + low.mean((1, 2), keepdims=True)
        return jnp.concatenate([eps, 99 * eps], axis=-1)

    x, low, t = normal(2, 3, 8, 8, 3), normal(2, 3, 2, 2, 3, seed=1), jnp.array([3, 800])
    eps = frame_denoiser(model)({"video": x}, t, {"video": low})
    want = x * t[:, None, None, None, None] + low.mean((2, 3), keepdims=True)
    assert eps.keys() == {"video"}
    np.testing.assert_allclose(eps["video"], want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["eps", "x0"])
def test_the_noise_is_read_from_what_the_network_predicts(kind: str):
    schedule = linear(1000, 1e-4, 0.02)
    x0, eps, t = normal(2, 4, 4, 3), normal(2, 4, 4, 3, seed=1), jnp.array([3, 800])
    said = {"eps": eps, "x0": x0}[kind]
    read = noise_half(lambda x, t: jnp.concatenate([said, 99 * said], -1), schedule, kind)
    got = read(noisy(x0, eps, t, schedule), t)
    np.testing.assert_allclose(got, eps, atol=1e-4)


def test_bad_inputs():
    model = nnx.eval_shape(lambda: SuperResolution(NARROW, rngs=RNGS()))
    t = jnp.array([1])
    low = normal(1, 2, 2, 3)
    with pytest.raises(ValueError, match="height and width must be multiples of 2"):
        model(normal(1, 8, 7, 3), t, low)
    with pytest.raises(ValueError, match=r"must be \[b h w c\] with c=6"):
        model(normal(1, 8, 8, 2), t, low)
    with pytest.raises(ValueError, match=r"low has shape .* with x's b"):
        model(normal(1, 8, 8, 3), t, normal(2, 2, 2, 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_res_blocks": 0}, "num_res_blocks is 0"),
        ({"channel_mult": ()}, "channel_mult"),
        ({"channel_mult": (1, 0.1)}, "must give each level a channel"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"num_groups": 3}, "4 channels cannot form 3 groups"),
        ({"attention_factors": (2, 4)}, r"attention_factors \[4\] do not occur"),
        ({"num_heads": 3}, "8 channels do not divide into attention heads"),
        ({"num_heads_up": 0}, "8 channels do not divide into attention heads"),
        ({"head_channels": 16}, "8 channels do not divide into attention heads"),
    ],
)
def test_bad_spec(change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(NARROW, **change)
