# SPDX-License-Identifier: Apache-2.0
"""Layers and config.json checks shared by the CLIP and CLAP text encoders."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mmdisco_jax.nn.attention import attention
from mmdisco_jax.types import Array

# Activations by the names that transformers gives them in config.json.
ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_new": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
}


class Embedding(nnx.Module):
    """Embedding table: ids [...] -> [... d], in the dtype of the loaded table.

    `nnx.Embed` keeps the dtype that it was built with, and would widen a bfloat16 encoder.
    """

    def __init__(self, num_rows: int, width: int, *, rngs: nnx.Rngs):
        self.embedding = nnx.Param(0.02 * jax.random.normal(rngs.params(), (num_rows, width)))

    def __call__(self, ids: Array) -> Array:
        return jnp.take(self.embedding[...], ids, axis=0)


def self_attention(
    queries: Array,
    keys: Array,
    values: Array,
    *,
    num_heads: int,
    attention_mask: Array | None,
    is_causal: bool = False,
) -> Array:
    """Multi-head self-attention over text with padding: three [b s d] -> [b s d].

    Args:
      attention_mask: [b s], 0 at padding, or None to attend to everything. Each position must see
        at least one key that is no padding.
      is_causal: a position sees only itself and those before it.
    """

    def split(x: Array) -> Array:
        return x.reshape(*x.shape[:2], num_heads, -1)

    mask = None if attention_mask is None else attention_mask.astype(bool)[:, None, None, :]
    out = attention(split(queries), split(keys), split(values), mask=mask, is_causal=is_causal)
    return out.reshape(queries.shape)


def check_length(ids: Array, limit: int, key: str) -> None:
    """Raise ValueError if ids [b s] has more positions than the encoder knows."""
    if ids.shape[-1] > limit:
        raise ValueError(
            f"{ids.shape[-1]} tokens a prompt, but the encoder knows {limit} positions ({key} of "
            "its config.json): give the tokenizer a length of at most that."
        )


def part_of(config: Mapping[str, Any], models: Sequence[str]) -> Mapping[str, Any]:
    """Return the text encoder's section of a config.json, which may describe a two-tower model.

    Args:
      models: the architectures that the encoder can be read from.

    Raises:
      ValueError: the config is that of another architecture.
    """
    part = config.get("text_config", config)
    named = config.get("architectures") or list(models)
    if not isinstance(part, Mapping) or not set(named) <= set(models):
        raise ValueError(
            f"architectures={named} in config.json: this encoder reads {list(models)} only. Is it "
            "the text encoder's folder?"
        )
    return part


def count(config: Mapping[str, Any], key: str, default: int, *, least: int = 1) -> int:
    """Read a whole number >= `least` from config.json; an absent key means `default`."""
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{key}={value!r} in config.json: must be a whole number >= {least}.")
    return value


def number(config: Mapping[str, Any], key: str, default: float) -> float:
    """Read a number between 0 and 1 from config.json; an absent key means `default`."""
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise ValueError(f"{key}={value!r} in config.json: must be a number between 0 and 1.")
    return float(value)


def activation(config: Mapping[str, Any], key: str, default: str) -> str:
    """Read the name of one of `ACTIVATIONS` from config.json; an absent key means `default`."""
    value = config.get(key, default)
    if value not in ACTIVATIONS:
        raise ValueError(
            f"{key}={value!r} in config.json: known activations are {sorted(ACTIVATIONS)}; add it "
            "to ACTIVATIONS in mmdisco_jax/text/layers.py."
        )
    return value


def check_heads(width: int, num_heads: int) -> None:
    """Raise ValueError unless `num_heads` divides `width`."""
    if width % num_heads:
        raise ValueError(
            f"hidden_size={width} in config.json: must be a multiple of "
            f"num_attention_heads={num_heads}."
        )
