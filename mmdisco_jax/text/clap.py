# SPDX-License-Identifier: Apache-2.0
"""CLAP's text encoder (Wu et al. 2023) with its projection, as AudioLDM is conditioned on it.

transformers' ClapTextModelWithProjection: a RoBERTa whose first position is pooled and projected
into the space that sounds share. AudioLDM scales the result to unit length.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmdisco_jax.nn.norm import LayerNorm
from mmdisco_jax.porting.port import Port
from mmdisco_jax.text import parts
from mmdisco_jax.types import Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClapTextSpec:
    """hidden_act, projection_hidden_act: names of `parts.ACTIVATIONS`. pad_token_id: the id that
    takes no position; positions count on from it.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    type_vocab_size: int
    hidden_act: str
    layer_norm_eps: float
    pad_token_id: int
    projection_dim: int
    projection_hidden_act: str

    @property
    def max_length(self) -> int:
        """Tokens of the longest prompt."""
        return self.max_position_embeddings - self.pad_token_id - 1


def spec_from_config(config: Mapping[str, Any]) -> ClapTextSpec:
    """The spec of a ClapTextModelWithProjection's config.json, or of a ClapModel's text part.

    Absent keys mean what transformers takes them for. Ignored, because they change nothing here:
    dropout, initialisation, dtypes, caching.

    Raises:
      ValueError: a value that this port does not support.
    """
    text = parts.part_of(config, ("ClapTextModelWithProjection", "ClapModel"))
    # Of the whole model's config, the outer projection holds for both towers.
    outer = {**text, **{k: config[k] for k in _PROJECTION if k in config}}
    if text.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError(
            f"position_embedding_type={text['position_embedding_type']!r} in config.json: must be "
            "'absolute', the only one that CLAP was released with."
        )
    spec = ClapTextSpec(
        vocab_size=parts.count(text, "vocab_size", 50265),
        hidden_size=parts.count(text, "hidden_size", 768),
        intermediate_size=parts.count(text, "intermediate_size", 3072),
        num_hidden_layers=parts.count(text, "num_hidden_layers", 12),
        num_attention_heads=parts.count(text, "num_attention_heads", 12),
        max_position_embeddings=parts.count(text, "max_position_embeddings", 514),
        type_vocab_size=parts.count(text, "type_vocab_size", 1),
        hidden_act=parts.activation(text, "hidden_act", "gelu"),
        layer_norm_eps=parts.number(text, "layer_norm_eps", 1e-12),
        pad_token_id=parts.count(text, "pad_token_id", 1, least=0),
        projection_dim=parts.count(outer, "projection_dim", 512),
        projection_hidden_act=parts.activation(outer, "projection_hidden_act", "relu"),
    )
    parts.check_heads(spec.hidden_size, spec.num_attention_heads)
    if spec.max_length < 1:
        raise ValueError(
            f"max_position_embeddings={spec.max_position_embeddings} in config.json: must be at "
            f"least pad_token_id + 2 = {spec.pad_token_id + 2}."
        )
    return spec


_PROJECTION = ("projection_dim", "projection_hidden_act")


def port_name(name: str) -> str | None:
    """A checkpoint's tensor name -> this module's; None for what holds no parameter of it.

    Buffers of positions, and of a whole ClapModel the audio tower and the temperatures.
    """
    if re.search(r"\.(position_ids|token_type_ids)$", name):
        return None
    return None if re.match(r"audio_(model|projection)\.|logit_scale_[at]$", name) else name


def buffers(spec: ClapTextSpec) -> dict[str, np.ndarray]:
    """What transformers' state dict holds beside the parameters; wanted when writing one."""
    positions = np.arange(spec.max_position_embeddings, dtype=np.int64)[None]
    return {
        "text_model.embeddings.position_ids": positions,
        "text_model.embeddings.token_type_ids": np.zeros_like(positions),
    }


class ClapTextOutput(NamedTuple):
    """last_hidden_state [b s d]; text_embeds [b p]; normalised [b p], of unit length, which is what
    AudioLDM is given.
    """

    last_hidden_state: Array
    text_embeds: Array
    normalised: Array


class ClapText(nnx.Module):
    """Token ids -> an embedding; parameters are named as in the released checkpoints."""

    def __init__(self, spec: ClapTextSpec, *, rngs: nnx.Rngs):
        self.spec = spec
        self.text_model = _TextModel(spec, rngs=rngs)
        self.text_projection = _Projection(spec, rngs=rngs)

    def __call__(self, input_ids: Array, attention_mask: Array | None = None) -> ClapTextOutput:
        """input_ids int [b s]; attention_mask [b s], 0 at padding; without one all are read.

        Raises:
          ValueError: more positions than the encoder knows.
        """
        parts.check_length(
            input_ids, self.spec.max_length, "max_position_embeddings - pad_token_id - 1"
        )
        hidden, pooled = self.text_model(input_ids, attention_mask)
        embeds = self.text_projection(pooled)
        return ClapTextOutput(hidden, embeds, unit_length(embeds))

    def condition(self, input_ids: Array, attention_mask: Array) -> Array:
        """What AudioLDM is given of tokens [b s] and their mask [b s]: [b p], of unit length."""
        return self(input_ids, attention_mask).normalised


def unit_length(x: Array) -> Array:
    """x / |x| over the last axis, the norm in float32 and at least 1e-12; zeros stay zeros."""
    wide = x.astype(jnp.float32)
    norm = jnp.sqrt(jnp.sum(jnp.square(wide), axis=-1, keepdims=True))
    return (wide / jnp.maximum(norm, 1e-12)).astype(x.dtype)


class _TextModel(nnx.Module):
    def __init__(self, spec: ClapTextSpec, *, rngs: nnx.Rngs):
        self.embeddings = _Embeddings(spec, rngs=rngs)
        self.encoder = _Encoder(spec, rngs=rngs)
        self.pooler = _Dense(spec.hidden_size, spec.hidden_size, rngs=rngs)

    def __call__(self, input_ids: Array, attention_mask: Array | None) -> tuple[Array, Array]:
        hidden = self.encoder(self.embeddings(input_ids), attention_mask)
        return hidden, jnp.tanh(self.pooler.dense(hidden[:, 0]))


class _Embeddings(nnx.Module):
    """Words, their positions and one type, summed and normalised; padding takes no position."""

    def __init__(self, spec: ClapTextSpec, *, rngs: nnx.Rngs):
        d = spec.hidden_size
        self.pad_token_id = spec.pad_token_id
        self.word_embeddings = parts.Embedding(spec.vocab_size, d, rngs=rngs)
        self.position_embeddings = parts.Embedding(spec.max_position_embeddings, d, rngs=rngs)
        self.token_type_embeddings = parts.Embedding(spec.type_vocab_size, d, rngs=rngs)
        self.LayerNorm = LayerNorm(d, epsilon=spec.layer_norm_eps)

    def __call__(self, input_ids: Array) -> Array:
        is_word = (input_ids != self.pad_token_id).astype(jnp.int32)
        positions = jnp.cumsum(is_word, axis=-1) * is_word + self.pad_token_id
        words = self.word_embeddings(input_ids) + self.token_type_embeddings(jnp.array(0))
        return self.LayerNorm(words + self.position_embeddings(positions))


class _Encoder(nnx.Module):
    def __init__(self, spec: ClapTextSpec, *, rngs: nnx.Rngs):
        self.layer = nnx.List([_Layer(spec, rngs=rngs) for _ in range(spec.num_hidden_layers)])

    def __call__(self, hidden: Array, attention_mask: Array | None) -> Array:
        for layer in self.layer:
            hidden = layer(hidden, attention_mask)
        return hidden


class _Layer(nnx.Module):
    """Post-norm: attention to all words, then an MLP."""

    def __init__(self, spec: ClapTextSpec, *, rngs: nnx.Rngs):
        self.hidden_act = spec.hidden_act
        self.attention = _Attention(spec, rngs=rngs)
        self.intermediate = _Dense(spec.hidden_size, spec.intermediate_size, rngs=rngs)
        self.output = _Output(spec.intermediate_size, spec, rngs=rngs)

    def __call__(self, hidden: Array, attention_mask: Array | None) -> Array:
        hidden = self.attention(hidden, attention_mask)
        wide = parts.ACTIVATIONS[self.hidden_act](self.intermediate.dense(hidden))
        return self.output(wide, hidden)


class _Attention(nnx.Module):
    def __init__(self, spec: ClapTextSpec, *, rngs: nnx.Rngs):
        # The checkpoint's attribute is called "self".
        self.self = _SelfAttention(spec, rngs=rngs)
        self.output = _Output(spec.hidden_size, spec, rngs=rngs)

    def __call__(self, hidden: Array, attention_mask: Array | None) -> Array:
        return self.output(self.self(hidden, attention_mask), hidden)


class _SelfAttention(nnx.Module):
    def __init__(self, spec: ClapTextSpec, *, rngs: nnx.Rngs):
        self.num_heads = spec.num_attention_heads
        d = spec.hidden_size
        self.query, self.key, self.value = (nnx.Linear(d, d, rngs=rngs) for _ in range(3))

    def __call__(self, x: Array, attention_mask: Array | None) -> Array:
        return parts.attend(
            self.query(x),
            self.key(x),
            self.value(x),
            num_heads=self.num_heads,
            attention_mask=attention_mask,
        )


class _Dense(nnx.Module):
    """A linear map that the checkpoint keeps one level further down."""

    def __init__(self, width_in: int, width_out: int, *, rngs: nnx.Rngs):
        self.dense = nnx.Linear(width_in, width_out, rngs=rngs)


class _Output(nnx.Module):
    """norm(linear(x) + residual)."""

    def __init__(self, width_in: int, spec: ClapTextSpec, *, rngs: nnx.Rngs):
        self.dense = nnx.Linear(width_in, spec.hidden_size, rngs=rngs)
        self.LayerNorm = LayerNorm(spec.hidden_size, epsilon=spec.layer_norm_eps)

    def __call__(self, x: Array, residual: Array) -> Array:
        return self.LayerNorm(self.dense(x) + residual)


class _Projection(nnx.Module):
    """Two linear maps with an activation between."""

    def __init__(self, spec: ClapTextSpec, *, rngs: nnx.Rngs):
        self.hidden_act = spec.projection_hidden_act
        self.linear1 = nnx.Linear(spec.hidden_size, spec.projection_dim, rngs=rngs)
        self.linear2 = nnx.Linear(spec.projection_dim, spec.projection_dim, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.linear2(parts.ACTIVATIONS[self.hidden_act](self.linear1(x)))


PORT = Port(spec_of=spec_from_config, module=ClapText, rename=port_name, buffers=buffers)
