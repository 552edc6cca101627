# SPDX-License-Identifier: Apache-2.0
"""CLAP text encoder with projection (Wu et al. 2023), which conditions AudioLDM.

This is transformers' ClapTextModelWithProjection: a RoBERTa whose first position is pooled and
projected into an embedding space shared with sounds. AudioLDM scales the embedding to unit length.
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
from mmdisco_jax.text import layers
from mmdisco_jax.types import Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClapTextSpec:
    """Sizes of CLAP's text encoder, under transformers' names.

    Attributes:
      hidden_act, projection_hidden_act: keys of `layers.ACTIVATIONS`.
      pad_token_id: id of padding, which takes no position. The first word's position is one more.
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
        """Number of tokens in the longest prompt."""
        return self.max_position_embeddings - self.pad_token_id - 1


def spec_from_config(config: Mapping[str, Any]) -> ClapTextSpec:
    """Read the spec from the config.json of a ClapTextModelWithProjection or of a ClapModel.

    Absent keys have transformers' defaults. Dropout, initialisation, dtypes and caching are ignored
    because they do not change the encoder's output.

    Raises:
      ValueError: a value that this port does not support.
    """
    text = layers.part_of(config, ("ClapTextModelWithProjection", "ClapModel"))
    # In a ClapModel's config, the outer projection applies to both towers.
    outer = {**text, **{k: config[k] for k in _PROJECTION if k in config}}
    if text.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError(
            f"position_embedding_type={text['position_embedding_type']!r} in config.json: must be "
            "'absolute', the only one that CLAP was released with."
        )
    spec = ClapTextSpec(
        vocab_size=layers.count(text, "vocab_size", 50265),
        hidden_size=layers.count(text, "hidden_size", 768),
        intermediate_size=layers.count(text, "intermediate_size", 3072),
        num_hidden_layers=layers.count(text, "num_hidden_layers", 12),
        num_attention_heads=layers.count(text, "num_attention_heads", 12),
        max_position_embeddings=layers.count(text, "max_position_embeddings", 514),
        type_vocab_size=layers.count(text, "type_vocab_size", 1),
        hidden_act=layers.activation(text, "hidden_act", "gelu"),
        layer_norm_eps=layers.number(text, "layer_norm_eps", 1e-12),
        pad_token_id=layers.count(text, "pad_token_id", 1, least=0),
        projection_dim=layers.count(outer, "projection_dim", 512),
        projection_hidden_act=layers.activation(outer, "projection_hidden_act", "relu"),
    )
    layers.check_heads(spec.hidden_size, spec.num_attention_heads)
    if spec.max_length < 1:
        raise ValueError(
            f"max_position_embeddings={spec.max_position_embeddings} in config.json: must be at "
            f"least pad_token_id + 2 = {spec.pad_token_id + 2}."
        )
    return spec


_PROJECTION = ("projection_dim", "projection_hidden_act")


def port_name(name: str) -> str | None:
    """Map a checkpoint's tensor name to this module's, or to None if it is not part of it.

    Not part of it are the buffers of positions and, in a whole ClapModel, the audio tower and the
    temperatures.
    """
    if re.search(r"\.(position_ids|token_type_ids)$", name):
        return None
    return None if re.match(r"audio_(model|projection)\.|logit_scale_[at]$", name) else name


def buffers(spec: ClapTextSpec) -> dict[str, np.ndarray]:
    """Return the buffers of transformers' state dict, which a written checkpoint must include."""
    positions = np.arange(spec.max_position_embeddings, dtype=np.int64)[None]
    return {
        "text_model.embeddings.position_ids": positions,
        "text_model.embeddings.token_type_ids": np.zeros_like(positions),
    }


class ClapTextOutput(NamedTuple):
    """Output of CLAP's text encoder.

    Attributes:
      last_hidden_state: [b s d].
      text_embeds: projected embedding of each prompt, [b p].
      normalised: the same, scaled to unit length, [b p]; AudioLDM's condition.
    """

    last_hidden_state: Array
    text_embeds: Array
    normalised: Array


class ClapText(nnx.Module):
    """CLAP text encoder. Maps token ids to one embedding per prompt.

    Parameters are named as in the released checkpoints.
    """

    def __init__(self, spec: ClapTextSpec, *, rngs: nnx.Rngs):
        self.spec = spec
        self.text_model = _TextModel(spec, rngs=rngs)
        self.text_projection = _Projection(spec, rngs=rngs)

    def __call__(self, input_ids: Array, attention_mask: Array | None = None) -> ClapTextOutput:
        """Encode prompts.

        Args:
          input_ids: int [b s].
          attention_mask: [b s], 0 at padding; None reads all positions.

        Raises:
          ValueError: s exceeds `spec.max_length`.
        """
        layers.check_length(
            input_ids, self.spec.max_length, "max_position_embeddings - pad_token_id - 1"
        )
        hidden, pooled = self.text_model(input_ids, attention_mask)
        embeds = self.text_projection(pooled)
        return ClapTextOutput(hidden, embeds, unit_length(embeds))

    def condition(self, input_ids: Array, attention_mask: Array) -> Array:
        """Compute AudioLDM's condition, [b p] of unit length, from tokens and their mask [b s]."""
        return self(input_ids, attention_mask).normalised


def unit_length(x: Array) -> Array:
    """Normalise the last axis of x to unit length, in float32; a zero vector stays zero."""
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
    """RoBERTa's embeddings: words, positions and one type, summed and normalised.

    Padding takes no position.
    """

    def __init__(self, spec: ClapTextSpec, *, rngs: nnx.Rngs):
        d = spec.hidden_size
        self.pad_token_id = spec.pad_token_id
        self.word_embeddings = layers.Embedding(spec.vocab_size, d, rngs=rngs)
        self.position_embeddings = layers.Embedding(spec.max_position_embeddings, d, rngs=rngs)
        self.token_type_embeddings = layers.Embedding(spec.type_vocab_size, d, rngs=rngs)
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
    """Post-norm transformer layer: bidirectional self-attention, then an MLP."""

    def __init__(self, spec: ClapTextSpec, *, rngs: nnx.Rngs):
        self.hidden_act = spec.hidden_act
        self.attention = _Attention(spec, rngs=rngs)
        self.intermediate = _Dense(spec.hidden_size, spec.intermediate_size, rngs=rngs)
        self.output = _Output(spec.intermediate_size, spec, rngs=rngs)

    def __call__(self, hidden: Array, attention_mask: Array | None) -> Array:
        hidden = self.attention(hidden, attention_mask)
        wide = layers.ACTIVATIONS[self.hidden_act](self.intermediate.dense(hidden))
        return self.output(wide, hidden)


class _Attention(nnx.Module):
    def __init__(self, spec: ClapTextSpec, *, rngs: nnx.Rngs):
        # The attribute is called "self" in the checkpoint.
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
        return layers.self_attention(
            self.query(x),
            self.key(x),
            self.value(x),
            num_heads=self.num_heads,
            attention_mask=attention_mask,
        )


class _Dense(nnx.Module):
    """Linear map, nested one level deeper to match the checkpoint's names."""

    def __init__(self, width_in: int, width_out: int, *, rngs: nnx.Rngs):
        self.dense = nnx.Linear(width_in, width_out, rngs=rngs)


class _Output(nnx.Module):
    """Linear map, residual connection and norm: norm(linear(x) + residual)."""

    def __init__(self, width_in: int, spec: ClapTextSpec, *, rngs: nnx.Rngs):
        self.dense = nnx.Linear(width_in, spec.hidden_size, rngs=rngs)
        self.LayerNorm = LayerNorm(spec.hidden_size, epsilon=spec.layer_norm_eps)

    def __call__(self, x: Array, residual: Array) -> Array:
        return self.LayerNorm(self.dense(x) + residual)


class _Projection(nnx.Module):
    """Projection head: two linear maps with an activation between."""

    def __init__(self, spec: ClapTextSpec, *, rngs: nnx.Rngs):
        self.hidden_act = spec.projection_hidden_act
        self.linear1 = nnx.Linear(spec.hidden_size, spec.projection_dim, rngs=rngs)
        self.linear2 = nnx.Linear(spec.projection_dim, spec.projection_dim, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.linear2(layers.ACTIVATIONS[self.hidden_act](self.linear1(x)))


PORT = Port(spec_of=spec_from_config, module=ClapText, rename=port_name, buffers=buffers)
