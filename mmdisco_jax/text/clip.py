# SPDX-License-Identifier: Apache-2.0
"""CLIP's text encoder (Radford et al. 2021), as transformers' CLIPTextModel has it.

Stable Diffusion and AnimateDiff are conditioned on all its positions, padding included.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx

from mmdisco_jax.nn.norm import LayerNorm
from mmdisco_jax.porting.port import Port
from mmdisco_jax.text import parts
from mmdisco_jax.types import Array

# Configs written before transformers 4.32 say 2 whatever the tokenizer has; it then pools at the
# highest id of a prompt, which is the end token as long as no token was added after it.
_EOS_BY_HIGHEST_ID = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipTextSpec:
    """hidden_act: a name of `parts.ACTIVATIONS`. eos_token_id: where to pool; 2 means "at the
    highest id". use_attention_mask: whether pipelines hide padding from it; released ones do not.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    hidden_act: str
    layer_norm_eps: float
    eos_token_id: int
    use_attention_mask: bool = False


def spec_from_config(config: Mapping[str, Any]) -> ClipTextSpec:
    """The spec of a CLIPTextModel's config.json, or of a CLIPModel's, of which it takes the text.

    Absent keys mean what transformers takes them for. Ignored, because they change nothing here:
    dropout, initialisation, dtypes, `projection_dim` (the projection is no part of this model).

    Raises:
      ValueError: a value that this port does not support.
    """
    text = parts.part_of(config, ("CLIPTextModel", "CLIPModel"))
    eos = text.get("eos_token_id", 49407)
    if isinstance(eos, bool) or not isinstance(eos, int):
        raise ValueError(
            f"eos_token_id={eos!r} in config.json: must be one whole number, the end token's id."
        )
    spec = ClipTextSpec(
        vocab_size=parts.count(text, "vocab_size", 49408),
        hidden_size=parts.count(text, "hidden_size", 512),
        intermediate_size=parts.count(text, "intermediate_size", 2048),
        num_hidden_layers=parts.count(text, "num_hidden_layers", 12),
        num_attention_heads=parts.count(text, "num_attention_heads", 8),
        max_position_embeddings=parts.count(text, "max_position_embeddings", 77),
        hidden_act=parts.activation(text, "hidden_act", "quick_gelu"),
        layer_norm_eps=parts.number(text, "layer_norm_eps", 1e-5),
        eos_token_id=eos,
        use_attention_mask=bool(text.get("use_attention_mask", False)),
    )
    parts.check_heads(spec.hidden_size, spec.num_attention_heads)
    return spec


def port_name(name: str) -> str | None:
    """A checkpoint's tensor name -> this module's; None for what holds no parameter of it.

    transformers 5 leaves out the prefix where it did not read one; old files hold `position_ids`;
    files of the whole CLIPModel hold the image tower and the projections.
    """
    if name.endswith(".position_ids") or re.match(
        r"(vision_model|visual_projection|text_projection)\.|logit_scale$", name
    ):
        return None
    return name if name.startswith("text_model.") else f"text_model.{name}"


class ClipTextOutput(NamedTuple):
    """last_hidden_state [b s d] after the final norm; pooled [b d], its row at the end token."""

    last_hidden_state: Array
    pooled: Array


class ClipText(nnx.Module):
    """Token ids -> features; parameters are named as in the released checkpoints."""

    def __init__(self, spec: ClipTextSpec, *, rngs: nnx.Rngs):
        self.spec = spec
        self.text_model = _TextModel(spec, rngs=rngs)

    def __call__(self, input_ids: Array, attention_mask: Array | None = None) -> ClipTextOutput:
        """input_ids int [b s]; attention_mask [b s], 0 where padding is to be hidden.

        A prompt's end token is its first id equal to `eos_token_id`; position 0 if there is none.

        Raises:
          ValueError: more positions than the encoder knows.
        """
        parts.check_length(input_ids, self.spec.max_position_embeddings, "max_position_embeddings")
        hidden = self.text_model(input_ids, attention_mask)
        if self.spec.eos_token_id == _EOS_BY_HIGHEST_ID:
            at = jnp.argmax(input_ids, axis=-1)
        else:
            at = jnp.argmax(input_ids == self.spec.eos_token_id, axis=-1)
        pooled = jnp.take_along_axis(hidden, at[:, None, None], axis=1)[:, 0]
        return ClipTextOutput(hidden, pooled)

    def condition(self, input_ids: Array, attention_mask: Array) -> Array:
        """What Stable Diffusion is given of tokens [b s] and their mask [b s]: [b s d]."""
        mask = attention_mask if self.spec.use_attention_mask else None
        return self(input_ids, mask).last_hidden_state


class _TextModel(nnx.Module):
    def __init__(self, spec: ClipTextSpec, *, rngs: nnx.Rngs):
        self.embeddings = _Embeddings(spec, rngs=rngs)
        self.encoder = _Encoder(spec, rngs=rngs)
        self.final_layer_norm = LayerNorm(spec.hidden_size, epsilon=spec.layer_norm_eps)

    def __call__(self, input_ids: Array, attention_mask: Array | None) -> Array:
        hidden = self.encoder(self.embeddings(input_ids), attention_mask)
        return self.final_layer_norm(hidden)


class _Embeddings(nnx.Module):
    def __init__(self, spec: ClipTextSpec, *, rngs: nnx.Rngs):
        d = spec.hidden_size
        self.token_embedding = parts.Embedding(spec.vocab_size, d, rngs=rngs)
        self.position_embedding = parts.Embedding(spec.max_position_embeddings, d, rngs=rngs)

    def __call__(self, input_ids: Array) -> Array:
        positions = jnp.arange(input_ids.shape[-1])
        return self.token_embedding(input_ids) + self.position_embedding(positions)


class _Encoder(nnx.Module):
    def __init__(self, spec: ClipTextSpec, *, rngs: nnx.Rngs):
        self.layers = nnx.List([_Layer(spec, rngs=rngs) for _ in range(spec.num_hidden_layers)])

    def __call__(self, hidden: Array, attention_mask: Array | None) -> Array:
        for layer in self.layers:
            hidden = layer(hidden, attention_mask)
        return hidden


class _Layer(nnx.Module):
    """Pre-norm: attention to what came before, then an MLP."""

    def __init__(self, spec: ClipTextSpec, *, rngs: nnx.Rngs):
        self.self_attn = _Attention(spec, rngs=rngs)
        self.layer_norm1 = LayerNorm(spec.hidden_size, epsilon=spec.layer_norm_eps)
        self.mlp = _Mlp(spec, rngs=rngs)
        self.layer_norm2 = LayerNorm(spec.hidden_size, epsilon=spec.layer_norm_eps)

    def __call__(self, hidden: Array, attention_mask: Array | None) -> Array:
        hidden = hidden + self.self_attn(self.layer_norm1(hidden), attention_mask)
        return hidden + self.mlp(self.layer_norm2(hidden))


class _Attention(nnx.Module):
    def __init__(self, spec: ClipTextSpec, *, rngs: nnx.Rngs):
        self.num_heads = spec.num_attention_heads
        d = spec.hidden_size
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nnx.Linear(d, d, rngs=rngs) for _ in range(4)
        )

    def __call__(self, x: Array, attention_mask: Array | None) -> Array:
        mixed = parts.attend(
            self.q_proj(x),
            self.k_proj(x),
            self.v_proj(x),
            num_heads=self.num_heads,
            attention_mask=attention_mask,
            is_causal=True,
        )
        return self.out_proj(mixed)


class _Mlp(nnx.Module):
    def __init__(self, spec: ClipTextSpec, *, rngs: nnx.Rngs):
        self.hidden_act = spec.hidden_act
        self.fc1 = nnx.Linear(spec.hidden_size, spec.intermediate_size, rngs=rngs)
        self.fc2 = nnx.Linear(spec.intermediate_size, spec.hidden_size, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.fc2(parts.ACTIVATIONS[self.hidden_act](self.fc1(x)))


PORT = Port(spec_of=spec_from_config, module=ClipText, rename=port_name)
