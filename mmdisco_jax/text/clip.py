# SPDX-License-Identifier: Apache-2.0
"""CLIP text encoder (Radford et al. 2021), which conditions Stable Diffusion and AnimateDiff.

This is transformers' CLIPTextModel. The diffusion models attend to the features of all its
positions, padding included.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx

from mmdisco_jax.nn.norm import LayerNorm
from mmdisco_jax.porting.port import Port
from mmdisco_jax.text import layers
from mmdisco_jax.types import Array

# Configs written before transformers 4.32 have 2 here, whatever the tokenizer's end token is.
# transformers then pools at the highest id of a prompt: the end token, unless tokens were added.
_EOS_BY_HIGHEST_ID = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipTextSpec:
    """Sizes of CLIP's text encoder, under transformers' names.

    Attributes:
      hidden_act: a key of `layers.ACTIVATIONS`.
      eos_token_id: the token at which to pool; 2 means the highest id of a prompt.
      use_attention_mask: hide padding from the encoder in `condition`. Released models do not.
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
    """Read the spec from the config.json of a CLIPTextModel or of a CLIPModel.

    Absent keys have transformers' defaults. Dropout, initialisation, dtypes and `projection_dim`
    are ignored because they do not change the encoder's output.

    Raises:
      ValueError: a value that this port does not support.
    """
    text = layers.part_of(config, ("CLIPTextModel", "CLIPModel"))
    eos = text.get("eos_token_id", 49407)
    if isinstance(eos, bool) or not isinstance(eos, int):
        raise ValueError(
            f"eos_token_id={eos!r} in config.json: must be one whole number, the end token's id."
        )
    spec = ClipTextSpec(
        vocab_size=layers.count(text, "vocab_size", 49408),
        hidden_size=layers.count(text, "hidden_size", 512),
        intermediate_size=layers.count(text, "intermediate_size", 2048),
        num_hidden_layers=layers.count(text, "num_hidden_layers", 12),
        num_attention_heads=layers.count(text, "num_attention_heads", 8),
        max_position_embeddings=layers.count(text, "max_position_embeddings", 77),
        hidden_act=layers.activation(text, "hidden_act", "quick_gelu"),
        layer_norm_eps=layers.number(text, "layer_norm_eps", 1e-5),
        eos_token_id=eos,
        use_attention_mask=bool(text.get("use_attention_mask", False)),
    )
    layers.check_heads(spec.hidden_size, spec.num_attention_heads)
    return spec


def port_name(name: str) -> str | None:
    """Map a checkpoint's tensor name to this module's, or to None if it is not part of it.

    transformers 5 may leave out the prefix. Old files also hold `position_ids`, and files of a
    whole CLIPModel hold the image tower and the projections.
    """
    if name.endswith(".position_ids") or re.match(
        r"(vision_model|visual_projection|text_projection)\.|logit_scale$", name
    ):
        return None
    return name if name.startswith("text_model.") else f"text_model.{name}"


class ClipTextOutput(NamedTuple):
    """Output of CLIP's text encoder.

    Attributes:
      last_hidden_state: features after the final norm, [b s d].
      pooled: the features at the end token, [b d].
    """

    last_hidden_state: Array
    pooled: Array


class ClipText(nnx.Module):
    """CLIP text encoder. Maps token ids to a feature vector per position.

    Parameters are named as in the released checkpoints.
    """

    def __init__(self, spec: ClipTextSpec, *, rngs: nnx.Rngs):
        self.spec = spec
        self.text_model = _TextModel(spec, rngs=rngs)

    def __call__(self, input_ids: Array, attention_mask: Array | None = None) -> ClipTextOutput:
        """Encode prompts.

        The end token of a prompt is its first id equal to `eos_token_id`, or else position 0.

        Args:
          input_ids: int [b s].
          attention_mask: [b s], 0 at positions to hide; None hides nothing.

        Raises:
          ValueError: s exceeds `spec.max_position_embeddings`.
        """
        layers.check_length(input_ids, self.spec.max_position_embeddings, "max_position_embeddings")
        hidden = self.text_model(input_ids, attention_mask)
        if self.spec.eos_token_id == _EOS_BY_HIGHEST_ID:
            at = jnp.argmax(input_ids, axis=-1)
        else:
            at = jnp.argmax(input_ids == self.spec.eos_token_id, axis=-1)
        pooled = jnp.take_along_axis(hidden, at[:, None, None], axis=1)[:, 0]
        return ClipTextOutput(hidden, pooled)

    def condition(self, input_ids: Array, attention_mask: Array) -> Array:
        """Compute Stable Diffusion's condition, [b s d], from tokens and their mask [b s]."""
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
        self.token_embedding = layers.Embedding(spec.vocab_size, d, rngs=rngs)
        self.position_embedding = layers.Embedding(spec.max_position_embeddings, d, rngs=rngs)

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
    """Pre-norm transformer layer: causal self-attention, then an MLP."""

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
        mixed = layers.self_attention(
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
        return self.fc2(layers.ACTIVATIONS[self.hidden_act](self.fc1(x)))


PORT = Port(spec_of=spec_from_config, module=ClipText, rename=port_name)
