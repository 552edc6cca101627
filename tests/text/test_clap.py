# SPDX-License-Identifier: Apache-2.0
"""CLAP's text encoder against transformers."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx

from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.porting.load import load_module, to_torch
from mmdisco_jax.text import clap
from tests.golden.checker import relative_error
from tests.support.porting import unplace
from tests.support.text_encoders import clap_model, tensors_of

CONFIGS = {
    "released": {"hidden_act": "gelu", "projection_hidden_act": "relu"},
    "quick": {
        "hidden_act": "quick_gelu",
        "projection_hidden_act": "gelu",
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-3,
    },
    "deep": {
        "hidden_size": 40,
        "num_attention_heads": 2,
        "num_hidden_layers": 3,
        "pad_token_id": 3,
        "projection_dim": 12,
        "projection_hidden_act": "tanh",
    },
}
MASK = np.array([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0]])


def ids(pad: int) -> np.ndarray:
    words = np.array([[0, 9, 5, 44, 59, 7, 2], [0, 9, 2, 0, 0, 0, 0], [0, 2, 0, 0, 0, 0, 0]])
    return np.where(MASK == 1, words, pad)


def port(model) -> clap.ClapText:
    spec = clap.spec_from_config(model.config.to_dict())
    names = {name: clap.port_name(name) for name in model.state_dict()}
    tensors: Any = {names[n]: value for n, value in tensors_of(model).items() if names[n]}
    return load_module(lambda: clap.ClapText(spec, rngs=param_keys(0)), tensors)


@functools.partial(jax.jit, static_argnums=0)
def _run(graphdef, params, *inputs):
    return nnx.merge(graphdef, params)(*inputs)


def run(model: clap.ClapText, *inputs) -> clap.ClapTextOutput:
    return _run(*nnx.split(model), *(jnp.asarray(x, jnp.int32) for x in inputs))


@pytest.fixture(scope="module")
def small():
    return port(clap_model(num_hidden_layers=1))


@pytest.mark.parametrize("case", ["quick", *(f"{name}, masked" for name in CONFIGS)])
def test_same_as_transformers(case):
    name, _, masked = case.partition(", ")
    reference = clap_model(**CONFIGS[name])
    inputs = [ids(reference.config.pad_token_id), MASK][: 2 if masked else 1]
    with torch.no_grad():
        names = ("input_ids", "attention_mask")
        want = reference(**dict(zip(names, map(torch.tensor, inputs), strict=False)))
    got = run(port(reference), *inputs)
    assert relative_error(got.last_hidden_state, want.last_hidden_state.numpy()) < 1e-5
    assert relative_error(got.text_embeds, want.text_embeds.numpy()) < 1e-5
    unit = torch.nn.functional.normalize(want.text_embeds, dim=-1).numpy()
    assert relative_error(got.normalised, unit) < 1e-5


def test_names_are_the_checkpoints_both_ways():
    reference = clap_model()
    model = port(reference)
    back = to_torch(nnx.split(model)[1]) | clap.buffers(model.spec)
    want = tensors_of(reference)
    assert back.keys() == want.keys()
    for name, value in want.items():
        assert back[name].dtype == value.dtype and np.array_equal(back[name], value), name


def test_names_of_the_whole_model():
    for name in ("audio_model.x.weight", "audio_projection.linear1.bias", "logit_scale_a"):
        assert clap.port_name(name) is None
    assert clap.port_name("text_projection.linear1.bias") == "text_projection.linear1.bias"


def test_padding_is_not_seen(small):
    """Neither how much of it there is nor, behind the mask, what stands there."""
    short = run(small, ids(1)[1:, :3], MASK[1:, :3]).normalised
    long = run(small, ids(1), MASK).normalised[1:]
    np.testing.assert_allclose(long, short, atol=1e-6)
    other = np.where(MASK == 1, ids(1), 33)
    np.testing.assert_array_equal(run(small, other, MASK).normalised[1:], long)
    assert not np.allclose(run(small, ids(1)).normalised[1:], long, atol=1e-3)


def test_unit_length():
    x = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(clap.unit_length(x), [[0.6, 0.8], [0, 0]], rtol=1e-6)
    assert clap.unit_length(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_half_precision_stays(small):
    want = run(small, ids(1), MASK)
    graphdef, params = nnx.split(small)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    got = run(nnx.merge(graphdef, half), ids(1), MASK)
    assert {x.dtype for x in got} == {jnp.dtype(jnp.bfloat16)}
    assert relative_error(got.normalised, want.normalised) < 3e-2


def test_released_size():
    """laion/clap-htsat-unfused and AudioLDM: a RoBERTa base and two layers of projection."""
    config = transformers.ClapTextConfig()
    with torch.device("meta"):
        reference = transformers.ClapTextModelWithProjection(config)
    want = {name: tuple(p.shape) for name, p in reference.named_parameters()}
    spec = clap.spec_from_config(config.to_dict())
    abstract = nnx.split(nnx.eval_shape(lambda: clap.ClapText(spec, rngs=param_keys(0))))[1]
    got = {name: entry.shape for name, entry in unplace(abstract).entries.items()}
    assert got == want
    assert sum(int(np.prod(shape)) for shape in got.values()) == 125_302_016
    assert spec.max_length == 512  # what AudioLDM's tokenizer pads to


def test_config_of_the_whole_model_and_defaults():
    text = {"hidden_size": 48, "num_attention_heads": 4}
    whole = {"architectures": ["ClapModel"], "text_config": text, "projection_dim": 32}
    spec = clap.spec_from_config(whole)
    config = transformers.ClapConfig(text_config=text, projection_dim=32)
    assert spec == clap.spec_from_config(config.to_dict())
    assert (spec.projection_dim, spec.hidden_size, spec.vocab_size) == (32, 48, 50265)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "mish"}, "hidden_act='mish'"),
        ({"projection_hidden_act": "mish"}, "projection_hidden_act='mish'"),
        ({"position_embedding_type": "relative_key"}, "'relative_key'.*must be 'absolute'"),
        ({"pad_token_id": None}, "pad_token_id=None.*>= 0"),
        ({"max_position_embeddings": 2}, "max_position_embeddings=2.*at least.*3"),
        ({"architectures": ["RobertaModel"]}, "RobertaModel.*ClapTextModelWithProjection"),
    ],
)
def test_what_is_not_supported_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        clap.spec_from_config(change)


def test_too_many_tokens(small):
    with pytest.raises(ValueError, match=r"19 tokens a prompt.*18 positions"):
        small(jnp.zeros((1, 19), jnp.int32))
