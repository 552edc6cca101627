# SPDX-License-Identifier: Apache-2.0
"""CLIP's text encoder against transformers."""

import dataclasses
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
from mmdisco_jax.text import clip, layers
from tests.golden.checker import relative_error
from tests.support.porting import unplace
from tests.support.text_encoders import clip_model, tensors_of

EOS = 57
CONFIGS = {
    "old": {"hidden_act": "quick_gelu", "eos_token_id": 2},
    "new": {"hidden_act": "gelu", "eos_token_id": EOS, "layer_norm_eps": 1e-3},
    "deep": {
        "eos_token_id": EOS,
        "hidden_size": 40,
        "num_attention_heads": 2,
        "num_hidden_layers": 3,
        "max_position_embeddings": 9,
        "hidden_act": "gelu_new",
    },
}
# Ids beyond the end token (58, 59) and repeated ends, where the two rules of pooling differ.
IDS = np.array(
    [[0, 59, 7, EOS, EOS, EOS, EOS], [0, 9, 4, 58, 12, 33, EOS], [0, EOS, 5, 1, 1, 1, 1]]
)
MASK = np.array([[1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0]])


def port(model) -> clip.ClipText:
    spec = clip.spec_from_config(model.config.to_dict())
    tensors: Any = {clip.port_name(name): value for name, value in tensors_of(model).items()}
    return load_module(lambda: clip.ClipText(spec, rngs=param_keys(0)), tensors)


@functools.partial(jax.jit, static_argnums=0)
def _run(graphdef, params, *inputs):
    return nnx.merge(graphdef, params)(*inputs)


def run(model: clip.ClipText, *inputs) -> clip.ClipTextOutput:
    return _run(*nnx.split(model), *(jnp.asarray(x, jnp.int32) for x in inputs))


@pytest.fixture(scope="module")
def small():
    return port(clip_model(num_hidden_layers=1, eos_token_id=EOS))


@pytest.mark.parametrize("case", [*CONFIGS, "old, masked", "deep, masked"])
def test_same_as_transformers(case):
    name, _, masked = case.partition(", ")
    reference, mask = clip_model(**CONFIGS[name]), MASK if masked else None
    with torch.no_grad():
        kwargs = {} if mask is None else {"attention_mask": torch.tensor(mask)}
        want = reference(input_ids=torch.tensor(IDS), **kwargs)
    got = run(port(reference), *([IDS] if mask is None else [IDS, mask]))
    assert relative_error(got.last_hidden_state, want.last_hidden_state.numpy()) < 1e-5
    assert relative_error(got.pooled, want.pooler_output.numpy()) < 1e-5


def test_names_are_the_checkpoints_both_ways():
    reference = clip_model()
    back = to_torch(nnx.split(port(reference))[1])
    want = {f"text_model.{name}": value for name, value in tensors_of(reference).items()}
    assert back.keys() == want.keys()
    assert all(np.array_equal(back[name], want[name]) for name in want)


def test_names_of_older_and_larger_checkpoints():
    kept = "text_model.encoder.layers.0.mlp.fc1.weight"
    assert clip.port_name(kept) == clip.port_name(kept.removeprefix("text_model.")) == kept
    for name in (
        "text_model.embeddings.position_ids",
        "vision_model.post_layernorm.weight",
        "visual_projection.weight",
        "text_projection.weight",
        "logit_scale",
    ):
        assert clip.port_name(name) is None
    assert (
        clip.port_name("strange.weight") == "text_model.strange.weight"
    )  # strict loading names it


def test_nothing_flows_back_from_later_words(small):
    later = IDS.copy()
    later[:, 4:] = 11
    got, changed = (run(small, ids).last_hidden_state for ids in (IDS, later))
    assert np.array_equal(got[:, :4], changed[:, :4])
    assert not np.allclose(got[:, 4:], changed[:, 4:])


def test_padding_is_hidden_where_the_config_says_so():
    reference = clip_model(num_hidden_layers=1, eos_token_id=EOS)
    reference.config.use_attention_mask = True
    model = port(reference)
    inputs = [jnp.asarray(x, jnp.int32) for x in (IDS, MASK)]
    want = run(model, *inputs).last_hidden_state
    np.testing.assert_allclose(model.condition(*inputs), want, atol=1e-6)
    model.spec = dataclasses.replace(model.spec, use_attention_mask=False)  # as released ones
    want = run(model, IDS).last_hidden_state
    np.testing.assert_allclose(model.condition(*inputs), want, atol=1e-6)


def test_half_precision_stays(small):
    want = run(small, IDS)
    graphdef, params = nnx.split(small)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    got = run(nnx.merge(graphdef, half), IDS)
    assert {x.dtype for x in got} == {jnp.dtype(jnp.bfloat16)}
    assert relative_error(got.last_hidden_state, want.last_hidden_state) < 2e-2


def test_released_size():
    """CLIP ViT-L/14, the text encoder of Stable Diffusion 1.x."""
    config = transformers.CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_attention_heads=12, eos_token_id=2
    )
    with torch.device("meta"):
        reference = transformers.CLIPTextModel(config)
    want = {f"text_model.{n}": tuple(p.shape) for n, p in reference.named_parameters()}
    spec = clip.spec_from_config(config.to_dict())
    abstract = nnx.split(nnx.eval_shape(lambda: clip.ClipText(spec, rngs=param_keys(0))))[1]
    got = {name: entry.shape for name, entry in unplace(abstract).entries.items()}
    assert got == want
    assert sum(int(np.prod(shape)) for shape in got.values()) == 123_060_480


def test_activations():
    from transformers.activations import ACT2FN

    x = np.linspace(-6, 6, 101, dtype=np.float32)
    for name, ours in layers.ACTIVATIONS.items():
        np.testing.assert_allclose(ours(jnp.asarray(x)), ACT2FN[name](torch.tensor(x)), atol=2e-6)


def test_config_of_the_whole_model_and_defaults():
    text = {"hidden_size": 64, "num_attention_heads": 4, "model_type": "clip_text_model"}
    whole = {"architectures": ["CLIPModel"], "text_config": text, "vision_config": {}}
    spec = clip.spec_from_config(whole)
    assert spec == clip.spec_from_config(text)
    config = transformers.CLIPTextConfig(**{k: v for k, v in text.items() if k != "model_type"})
    assert spec == clip.spec_from_config(config.to_dict())  # absent keys are transformers'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "mish"}, "hidden_act='mish'.*known activations are"),
        ({"hidden_size": 30, "num_attention_heads": 4}, "hidden_size=30.*multiple.*heads=4"),
        ({"eos_token_id": [2, 3]}, r"eos_token_id=\[2, 3\].*one whole number"),
        ({"vocab_size": 0}, "vocab_size=0.*>= 1"),
        ({"num_hidden_layers": 2.5}, "num_hidden_layers=2.5"),
        ({"layer_norm_eps": -1e-5}, "layer_norm_eps=-1e-05.*between 0 and 1"),
        ({"architectures": ["T5EncoderModel"]}, "T5EncoderModel.*CLIPTextModel.*folder"),
        ({"text_config": "x"}, "architectures"),
    ],
)
def test_what_is_not_supported_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        clip.spec_from_config(change)


def test_too_many_tokens(small):
    with pytest.raises(ValueError, match=r"17 tokens a prompt.*16 positions.*length"):
        small(jnp.zeros((1, 17), jnp.int32))
