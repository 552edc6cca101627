# SPDX-License-Identifier: Apache-2.0
"""The config's text encoders: from prompts to what the base models are conditioned on."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from mmdisco_jax.build.ports import PORTS
from mmdisco_jax.build.pretrained import filled, part, root
from mmdisco_jax.build.sections import Config
from mmdisco_jax.text.tokens import PromptTokenizer, load_tokenizer

_BATCH = 64  # prompts at once


@dataclasses.dataclass(frozen=True, eq=False)
class TextEncoder:
    """Prompts -> embeddings: float32 [n s d] of CLIP, or [n d] of CLAP, as pipelines use them."""

    tokenizer: PromptTokenizer
    graphdef: nnx.GraphDef
    params: Any

    def __call__(self, prompts: Sequence[str]) -> np.ndarray:
        tokens = self.tokenizer(prompts)
        size = min(_BATCH, len(prompts))
        rest = -len(prompts) % size  # so that one program serves all batches
        ids, mask = (np.pad(x, ((0, rest), (0, 0)), "edge") for x in tokens)

        cuts = [slice(first, first + size) for first in range(0, len(ids), size)]
        parts = [_encode(self.graphdef, self.params, ids[cut], mask[cut]) for cut in cuts]
        return np.concatenate(jax.device_get(parts))[: len(prompts)]


@functools.partial(jax.jit, static_argnums=0)
def _encode(graphdef: nnx.GraphDef, params: Any, ids: Any, mask: Any) -> Any:
    module: Any = nnx.merge(graphdef, params)
    return module.condition(ids, mask).astype(np.float32)


def texts(config: Config) -> dict[str, TextEncoder]:
    """A text encoder for each modality that `config.texts` names."""
    return {m: _text_encoder(config, section) for m, section in config.texts.items()}


def _text_encoder(config: Config, section: Config) -> TextEncoder:
    if section.name not in _KINDS:
        raise ValueError(
            f"unknown text encoder {section.name!r}: choose one of {', '.join(_KINDS)}."
        )
    kind = _KINDS[section.name]
    found = part(config, section.weights, section.folder, kind)
    port = PORTS[kind]
    if found.port is not port:
        raise ValueError(
            f"config.texts: {section.name} is a {kind}, but {section.folder}/config.json of "
            f"config.weights.{section.weights} is of another class: choose another name or folder."
        )
    spec = port.spec_of(found.config)
    graphdef, abstract = port.skeleton(spec)
    params = filled(found, abstract, dtype=section.dtype)
    folder = root(config, section.weights, others=(section.tokenizer,)) / section.tokenizer
    tokenizer = load_tokenizer(folder, length=section.length or None, vocab_size=spec.vocab_size)
    return TextEncoder(tokenizer, graphdef, params)


_KINDS = {"clip": "CLIPTextModel", "clap": "ClapTextModelWithProjection"}
