# SPDX-License-Identifier: Apache-2.0
"""Strictness and bit-exactness of the exchange of weights."""

import numpy as np
import pytest
from flax import nnx

from mmdisco_jax.discriminator.fusion import FusionSpec
from mmdisco_jax.discriminator.official import OfficialDiscriminator, OfficialDiscriminatorSpec
from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.porting.load import from_torch, load_module, strip_prefix, to_torch
from mmdisco_jax.porting.names import TorchTensor, torch_tensor

SPEC = OfficialDiscriminatorSpec(
    video_channels=2,
    audio_channels=1,
    model_channels=4,
    num_groups=2,
    num_res_blocks=1,
    channel_mult=(1, 2),
    emb_dim=8,
    video_text_dim=3,
    audio_text_dim=5,
    fusion=FusionSpec(
        kind="cat_time_and_apply_transformer",
        num_layers=1,
        channels=4,
        out_channels=6,
        num_heads=1,
        head_dim=2,
        max_tokens=9,
        class_token=True,
    ),
)


def make() -> OfficialDiscriminator:
    return OfficialDiscriminator(SPEC, rngs=param_keys(0))


def abstract() -> nnx.State:
    """Shapes of the parameters; drawing them would take most of the tests' time."""
    return nnx.split(nnx.eval_shape(make))[1]


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    """Distinct random values under every official name of the small network."""
    rng = np.random.default_rng(0)
    random = {}
    for path, leaf in nnx.to_flat_state(abstract()):
        name, axes = torch_tensor(path, leaf.ndim)
        shape = [leaf.shape[axis] for axis in axes]
        random[name] = rng.standard_normal(shape, dtype=np.float32)
    return random


def test_round_trip_is_bit_exact(tensors: dict[str, np.ndarray]):
    back = to_torch(nnx.split(load_module(make, tensors))[1])
    assert back.keys() == tensors.keys()
    assert all(np.array_equal(back[name], tensors[name]) for name in tensors)


def test_every_sort_of_misfit_is_named(tensors: dict[str, np.ndarray]):
    bad = dict(tensors)
    del bad["last_linear.bias"]
    bad["stranger.weight"] = np.zeros(3)
    bad["video_text_embed.weight"] = bad["video_text_embed.weight"].T
    with pytest.raises(ValueError) as caught:
        load_module(make, bad)
    message = str(caught.value)
    assert "missing: last_linear.bias" in message
    assert "unexpected: stranger.weight" in message
    assert "wrong shape: video_text_embed.weight is (3, 8), the model has (8, 3)" in message


@pytest.mark.parametrize("misfit", ["missing", "unexpected"])
def test_one_misfit_is_enough(tensors: dict[str, np.ndarray], misfit: str):
    bad = dict(tensors)
    if misfit == "missing":
        del bad["time_embed.projection.linear_1.weight"]
    else:
        bad["extra"] = np.zeros(1)
    with pytest.raises(ValueError, match=misfit):
        from_torch(abstract(), bad)


def test_overrides_serve_both_ways():
    params = nnx.split(nnx.Linear(2, 3, rngs=param_keys(0)))[1]
    overrides = {"kernel": TorchTensor("odd_name", (0, 1)), "bias": TorchTensor("b", (0,))}
    tensors = to_torch(params, overrides=overrides)
    assert {name: x.shape for name, x in tensors.items()} == {"odd_name": (2, 3), "b": (3,)}
    again = from_torch(params, tensors, overrides=overrides)
    np.testing.assert_array_equal(again["kernel"][...], params["kernel"][...])


def test_strip_prefix():
    assert strip_prefix({"module.a": np.ones(1)}, "module.").keys() == {"a"}
    with pytest.raises(ValueError, match=r"without the prefix 'module\.': b"):
        strip_prefix({"module.a": np.ones(1), "b": np.ones(1)}, "module.")
