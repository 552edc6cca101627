# SPDX-License-Identifier: Apache-2.0
"""Tiny tokenizers in the released folders' form, and random encoders of transformers."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

CORPUS = (
    "a dog barks in the rain while the thunder rolls",
    "a hammer strikes an anvil, sparks fly",
    "waves break on a rocky shore at night",
)
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())  # every byte has a token


def save_clip_tokenizer(folder: Path, *, length: int, **settings: Any) -> int:
    """vocab.json and merges.txt as CLIP's: marks last, words end in </w>. Returns the size."""
    merges = _merges(suffix="</w>")
    vocab = [*ALPHABET, *(c + "</w>" for c in ALPHABET), *(a + b for a, b in merges)]
    vocab += ["<|startoftext|>", "<|endoftext|>"]
    return _save(folder, vocab, merges, "CLIPTokenizer", length, settings)


def save_roberta_tokenizer(folder: Path, *, length: int, **settings: Any) -> int:
    """vocab.json and merges.txt as RoBERTa's: marks first, padding is 1. Returns the size."""
    merges = _merges(suffix="")
    vocab = ["<s>", "<pad>", "</s>", "<unk>", *ALPHABET, *(a + b for a, b in merges), "<mask>"]
    return _save(folder, vocab, merges, "RobertaTokenizer", length, settings)


def random_(model: Any, seed: int = 0) -> Any:
    """The module in evaluation mode with parameters of a size at which all of it matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.2
            shift = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            parameter.normal_(shift, scale, generator=generator)
    return model.eval()


def clip_model(**settings: Any) -> Any:
    sizes: dict[str, Any] = {
        "vocab_size": 60,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 16,
        "bos_token_id": 0,
        "eos_token_id": 2,
    }
    config = transformers.CLIPTextConfig(**(sizes | settings))
    return random_(transformers.CLIPTextModel(config))


def clap_model(**settings: Any) -> Any:
    sizes: dict[str, Any] = {
        "vocab_size": 60,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 20,
        "projection_dim": 24,
    }
    config = transformers.ClapTextConfig(**(sizes | settings))
    return random_(transformers.ClapTextModelWithProjection(config))


def tensors_of(model: Any) -> dict[str, Any]:
    """The state dict as NumPy arrays."""
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def _merges(suffix: str) -> list[tuple[str, str]]:
    """Byte pairs learnt from `CORPUS`."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=suffix))
    tokenizer.pre_tokenizer = (
        pre_tokenizers.Sequence(
            [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        if suffix
        else pre_tokenizers.ByteLevel(add_prefix_space=False)
    )
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=ALPHABET,
        end_of_word_suffix=suffix,
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


def _save(
    folder: Path,
    vocab: list[str],
    merges: list[tuple[str, str]],
    kind: str,
    length: int,
    settings: dict[str, Any],
) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    assert len(set(vocab)) == len(vocab)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocab)}))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    config = {"tokenizer_class": kind, "model_max_length": length} | settings
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(vocab)
