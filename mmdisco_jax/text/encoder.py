# SPDX-License-Identifier: Apache-2.0
"""Text encoder with its tokenizer and weights: prompts to the embeddings that models read."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from mmdisco_jax.text.tokens import PromptTokenizer

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
