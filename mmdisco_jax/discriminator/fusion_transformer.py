# SPDX-License-Identifier: Apache-2.0
"""Pre-norm transformer of the official fusion models; attribute names are the checkpoints'."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from mmdisco_jax.nn.layers import GELU, Identity
from mmdisco_jax.nn.norm import EPSILON


class Attention(nnx.Module):
    """Multi-head self-attention without bias on queries, keys and values: [b s d] -> [b s d].

    It is written out, because the gradients of `nn.attention` differ from it in the last bits, and
    the networks that were trained with this form continue bit for bit.
    """

    def __init__(self, dim: int, num_heads: int, head_dim: int, *, rngs: nnx.Rngs):
        self.num_heads = num_heads
        self.head_dim = head_dim
        inner = num_heads * head_dim
        self.to_q = nnx.Linear(dim, inner, use_bias=False, rngs=rngs)
        self.to_k = nnx.Linear(dim, inner, use_bias=False, rngs=rngs)
        self.to_v = nnx.Linear(dim, inner, use_bias=False, rngs=rngs)
        self.to_out = nnx.Linear(inner, dim, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        heads = (*x.shape[:-1], self.num_heads, self.head_dim)
        q, k, v = (proj(x).reshape(heads) for proj in (self.to_q, self.to_k, self.to_v))
        weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) * self.head_dim**-0.5)
        return self.to_out(jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(*x.shape[:-1], -1))


class FeedForward(nnx.Module):
    """Feed-forward layer with an exact GELU and four times the width: [... d] -> [... d]."""

    def __init__(self, dim: int, *, rngs: nnx.Rngs):
        widen = nnx.List([nnx.Linear(dim, 4 * dim, rngs=rngs), GELU()])
        self.net: nnx.List = nnx.List([widen, Identity(), nnx.Linear(4 * dim, dim, rngs=rngs)])

    def __call__(self, x: Array) -> Array:
        linear, activation = self.net[0]
        return self.net[2](activation(linear(x)))


class AttentionLayers(nnx.Module):
    """`depth` pre-norm layers of attention and feed-forward, each with a residual connection."""

    def __init__(self, dim: int, depth: int, num_heads: int, head_dim: int, *, rngs: nnx.Rngs):
        layers = []
        for _ in range(depth):
            attention = Attention(dim, num_heads, head_dim, rngs=rngs)
            for layer in (attention, FeedForward(dim, rngs=rngs)):
                layers.append(nnx.List([layer_norm(dim, rngs=rngs), layer]))
        self.layers = nnx.List(layers)

    def __call__(self, x: Array) -> Array:
        for norm, layer in self.layers:
            x = x + layer(norm(x))
        return x


class PositionEmbedding(nnx.Module):
    """Learned position embedding: num_tokens -> [num_tokens d], the same for every sample."""

    def __init__(self, max_tokens: int, dim: int, *, rngs: nnx.Rngs):
        init = nnx.initializers.normal(0.02)
        self.emb = nnx.Embed(max_tokens, dim, embedding_init=init, rngs=rngs)

    def __call__(self, num_tokens: int) -> Array:
        return self.emb(jnp.arange(num_tokens))


class FusionTransformer(nnx.Module):
    """Fusion transformer: tokens [b s d] -> [b s' o].

    A class token is prepended if asked for, so that s' = s + 1. The official model then has one
    layer more than its config says, and so has this one.

    Raises:
      ValueError: a call has more tokens than `max_tokens`.
    """

    def __init__(
        self,
        dim: int,
        out_dim: int,
        *,
        num_layers: int,
        num_heads: int,
        head_dim: int,
        max_tokens: int,
        class_token: bool,
        rngs: nnx.Rngs,
    ):
        self.max_tokens = max_tokens
        self.class_token = class_token
        if class_token:
            self.cls_emb = nnx.Param(dim**-0.5 * jax.random.normal(rngs.params(), (1, 1, dim)))
        self.pos_emb = PositionEmbedding(max_tokens, dim, rngs=rngs)
        self.attn_layers = AttentionLayers(
            dim, num_layers + class_token, num_heads, head_dim, rngs=rngs
        )
        self.norm = layer_norm(dim, rngs=rngs)
        self.out_layer = nnx.Linear(dim, out_dim, rngs=rngs)

    def __call__(self, tokens: Array) -> Array:
        if self.class_token:
            cls = jnp.broadcast_to(self.cls_emb[...], (tokens.shape[0], 1, tokens.shape[2]))
            tokens = jnp.concatenate([cls.astype(tokens.dtype), tokens], axis=1)
        count = tokens.shape[1]
        if count > self.max_tokens:
            raise ValueError(
                f"{count} tokens exceed the {self.max_tokens} positions of the fusion transformer: "
                "shorten the clip or raise max_tokens"
            )
        return self.out_layer(self.norm(self.attn_layers(tokens + self.pos_emb(count))))


def layer_norm(dim: int, *, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Make a layer norm as PyTorch's: epsilon 1e-5, variance of the centred values."""
    return nnx.LayerNorm(dim, epsilon=EPSILON, use_fast_variance=False, rngs=rngs)
