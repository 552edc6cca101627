# SPDX-License-Identifier: Apache-2.0
"""Prompts to tokens, and prompts to embeddings as diffusers' pipelines make them."""

import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
import torch
from flax import nnx

from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.porting.folders import open_component
from mmdisco_jax.porting.place import place
from mmdisco_jax.text import clap, clip
from mmdisco_jax.text.tokens import Tokens, load_tokenizer
from tests.golden.checker import relative_error
from tests.support import text_encoders as tiny
from tests.support.reference import diffusers

LENGTH = 14
PROMPTS = ["a dog barks in the rain", "", "Sparks  fly! 🔥", "waves break, thunder rolls " * 200]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder as pipelines have it, of each kind: tokenizer and text_encoder."""
    root = tmp_path_factory.mktemp("pipelines")
    for kind, save in (("clip", tiny.save_clip_tokenizer), ("clap", tiny.save_roberta_tokenizer)):
        size = save(root / kind / "tokenizer", length=LENGTH)
        model = (
            tiny.clip_model(vocab_size=size, bos_token_id=size - 2, eos_token_id=size - 1)
            if kind == "clip"
            else tiny.clap_model(vocab_size=size)
        )
        model.save_pretrained(root / kind / "text_encoder")
    return root


@pytest.mark.parametrize(("kind", "marks"), [("clip", (-2, -1, -1)), ("clap", (0, 2, 1))])
def test_marks_padding_and_mask(folder: Path, kind, marks):
    tokenizer = load_tokenizer(folder / kind / "tokenizer")
    size = len(json.loads((folder / kind / "tokenizer" / "vocab.json").read_text()))
    first, last, pad = (mark % size for mark in marks)
    tokens = tokenizer(["a dog barks", ""])
    assert {x.dtype for x in tokens} == {np.dtype(np.int32)}
    assert tokens.ids.shape == tokens.mask.shape == (2, LENGTH)
    assert tokens.ids[1].tolist() == [first, last] + [pad] * (LENGTH - 2)
    assert tokens.mask[1].tolist() == [1, 1] + [0] * (LENGTH - 2)
    used = int(tokens.mask[0].sum())
    assert tokens.ids[0, 0] == first and tokens.ids[0, used - 1] == last
    assert tokenizer.tokenizer.decode(tokens.ids[0, 1 : used - 1]).strip() == "a dog barks"
    assert np.array_equal(tokenizer(" \n").ids, tokens.ids[1:])  # nothing but space: no condition


# RoBERTa's tokens have the space before a word: the first "dog", without one, is two here.
@pytest.mark.parametrize(("kind", "room"), [("clip", 3), ("clap", 4)])
def test_what_is_cut_is_said(folder: Path, kind, room):
    tokenizer = load_tokenizer(folder / kind / "tokenizer", length=room + 2)
    message = rf"prompt 2 .* the encoder reads {room}: it does not see 'rain the thunder'"
    with pytest.warns(UserWarning, match=message + r"\.$"):
        tokens = tokenizer(["dog dog dog", "dog dog dog rain the thunder"])
    assert np.array_equal(tokens.ids[0], tokens.ids[1])
    with pytest.warns(UserWarning, match="it does not see 'rain'"):
        tokenizer(["dog dog dog rain"])  # one too many
    with pytest.warns(UserWarning, match=message + "; 2 more are cut") as told:
        tokenizer(["dog", *3 * ["dog dog dog rain the thunder"]])
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer(["dog dog dog"])


@pytest.mark.parametrize("kind", ["clip", "clap"])
@pytest.mark.filterwarnings("ignore:prompt")
def test_prompt_to_embedding_as_diffusers(folder: Path, kind):
    """Folder and prompts in, embedding out; the reference is the pipelines' own method."""
    import transformers

    kinds: dict[str, tuple[Any, ...]] = {
        "clip": (clip, clip.ClipText, transformers.CLIPTextModel, diffusers.AnimateDiffPipeline),
        "clap": (
            clap,
            clap.ClapText,
            transformers.ClapTextModelWithProjection,
            diffusers.AudioLDMPipeline,
        ),
    }
    port, module, reference, pipeline = kinds[kind]
    encode = pipeline.encode_prompt if kind == "clip" else pipeline._encode_prompt
    root = folder / kind
    themselves = SimpleNamespace(
        tokenizer=transformers.AutoTokenizer.from_pretrained(root / "tokenizer"),
        text_encoder=reference.from_pretrained(root / "text_encoder"),
        unet=None,
    )
    with torch.no_grad():
        want = encode(themselves, PROMPTS, "cpu", 1, False)
    want = (want[0] if isinstance(want, tuple) else want).numpy()

    component = open_component(root, "text_encoder")
    spec = port.spec_from_config(component.config)
    graphdef, abstract = nnx.split(nnx.eval_shape(lambda: module(spec, rngs=param_keys(0))))
    params = place(abstract, component.tensors.renamed(port.port_name))
    tokens = load_tokenizer(root / "tokenizer", vocab_size=spec.vocab_size)(PROMPTS)
    got = jax.jit(lambda params, tokens: nnx.merge(graphdef, params).condition(*tokens))(
        params, Tokens(*map(np.asarray, tokens))
    )
    assert relative_error(got, want) < 1e-5
    assert relative_error(np.roll(got, 1, axis=0), want) > 0.1  # the prompts do differ


def test_what_does_not_fit_is_named(folder: Path, tmp_path: Path):
    tokenizer = folder / "clip" / "tokenizer"
    with pytest.raises(ValueError, match=r"has .* tokens, the encoder 60: they do not belong"):
        load_tokenizer(tokenizer, vocab_size=60)
    with pytest.raises(ValueError, match="length=2 of the tokens must be at least 3"):
        load_tokenizer(tokenizer, length=2)
    with pytest.raises(FileNotFoundError, match="absent: no such tokenizer folder"):
        load_tokenizer(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"no readable tokenizer.*needs tokenizer_config\.json"):
        load_tokenizer(tmp_path)
    tiny.save_clip_tokenizer(tmp_path / "endless", length=10**30)
    with pytest.raises(ValueError, match="names no limit of tokens; set model_max_length"):
        load_tokenizer(tmp_path / "endless")
    tiny.save_roberta_tokenizer(tmp_path / "unpadded", length=9, pad_token=None)
    with pytest.raises(ValueError, match="no padding token: set pad_token"):
        load_tokenizer(tmp_path / "unpadded")
    with pytest.raises(ValueError, match=r"prompt 2: .* characters"):
        load_tokenizer(tokenizer)(["a", "x" * 20_000])


def test_code_in_a_tokenizer_folder_never_runs(tmp_path: Path):
    tiny.save_clip_tokenizer(tmp_path, length=9, auto_map={"AutoTokenizer": ["evil.Evil", None]})
    sign = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(
        f"open({str(sign)!r}, 'w')\nfrom transformers import CLIPTokenizer as Evil\n"
    )
    try:
        load_tokenizer(tmp_path)
    except ValueError as error:
        assert "no readable tokenizer" in str(error)
    assert not sign.exists()
