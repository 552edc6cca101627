# SPDX-License-Identifier: Apache-2.0
"""Transformer layers modulated by the noise level (DiT, Peebles and Xie 2023).

The modulation is computed once per network and shifted by a small table in each block
(adaLN-single, Chen et al. 2023, PixArt-alpha): a third of the parameters of one projection per
block. No dropout and no state: every layer may be differentiated twice with respect to its input.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from mmdisco_jax.nn.keys import param_keys
from mmdisco_jax.types import Array

ZERO = nnx.initializers.zeros_init()


def sinusoid(t: Array, width: int, max_period: float = 10_000.0) -> Array:
    """Cosines, then sines, of t [b] at geometric frequencies -> float32 [b, width]."""
    half = width // 2
    frequency = jnp.exp(-jnp.log(max_period) * jnp.arange(half) / half)
    angle = t.astype(jnp.float32)[:, None] * frequency
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


class NoiseLevel(nnx.Module):
    """t [b] -> modulation [b, num_outputs, width], zero at the start."""

    def __init__(self, width: int, num_outputs: int, *, rngs: nnx.Rngs):
        self.width, self.num_outputs = width, num_outputs
        self.linear_1 = nnx.Linear(width, width, rngs=rngs)
        self.linear_2 = nnx.Linear(width, num_outputs * width, kernel_init=ZERO, rngs=rngs)

    def __call__(self, t: Array) -> Array:
        hidden = nnx.silu(self.linear_1(sinusoid(t, self.width)))
        return self.linear_2(hidden).reshape(-1, self.num_outputs, self.width)


def layer_norm(x: Array) -> Array:
    """Zero mean and unit variance over the last axis, without parameters."""
    mean = x.mean(-1, keepdims=True)
    variance = jnp.square(x - mean).mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-6)


class Attention(nnx.Module):
    """Self-attention over tokens [b n d]."""

    def __init__(self, width: int, num_heads: int, *, rngs: nnx.Rngs):
        if width % num_heads:
            raise ValueError(f"width {width} must be a multiple of num_heads {num_heads}.")
        self.num_heads = num_heads
        self.qkv = nnx.Linear(width, 3 * width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        b, n, d = x.shape
        q, k, v = jnp.split(self.qkv(x).reshape(b, n, 3 * self.num_heads, -1), 3, axis=2)
        return self.out(jax.nn.dot_product_attention(q, k, v).reshape(b, n, d))


class GatedMLP(nnx.Module):
    """x + gate * MLP(norm(x) * (1 + scale) + shift), on the last axis."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.linear_1 = nnx.Linear(width, 4 * width, rngs=rngs)
        self.linear_2 = nnx.Linear(4 * width, width, rngs=rngs)
        self.table = nnx.Param(jnp.zeros((3, width)))

    def __call__(self, x: Array, modulation: Array) -> Array:
        """x [b n d], modulation [b 3 d] -> [b n d]."""
        scale, shift, gate = jnp.split(modulation + self.table[...], 3, axis=1)
        h = self.linear_1(layer_norm(x) * (1 + scale) + shift)
        return x + (1 + gate) * self.linear_2(nnx.silu(h))


class Local(nnx.Module):
    """x + a depthwise convolution of norm(x) along the tokens, zero at the start.

    Attention has to discover that tokens have neighbours; motion and decay are told here.
    """

    def __init__(self, width: int, taps: int):
        self.kernel = nnx.Param(jnp.zeros((taps, width)))

    def __call__(self, x: Array) -> Array:
        """x [b n d] -> [b n d]; zeros beyond the ends."""
        taps, n = self.kernel[...].shape[0], x.shape[1]
        # A banded matrix per feature: few tokens make it the fastest form on every backend.
        shifts = jnp.stack([jnp.eye(n, k=k - taps // 2) for k in range(taps)])
        band = jnp.einsum("kmn,kd->mnd", shifts, self.kernel[...])
        return x + jnp.einsum("bnd,mnd->bmd", layer_norm(x), band)


class Block(nnx.Module):
    """Local mixing if asked, attention, then MLP, these two modulated by the noise level.

    taps: odd length of the local convolution, or 0 for none.
    """

    def __init__(self, width: int, num_heads: int, taps: int = 0, *, rngs: nnx.Rngs):
        if taps and taps % 2 == 0:
            raise ValueError(f"the local convolution's taps must be odd or 0, got {taps}.")
        self.local = Local(width, taps) if taps else None
        self.attention = Attention(width, num_heads, rngs=rngs)
        self.mlp = GatedMLP(width, rngs=rngs)
        self.table = nnx.Param(jnp.zeros((3, width)))

    def __call__(self, x: Array, modulation: Array) -> Array:
        """x [b n d], modulation [b 6 d] -> [b n d]."""
        if self.local is not None:
            x = self.local(x)
        scale, shift, gate = jnp.split(modulation[:, :3] + self.table[...], 3, axis=1)
        x = x + (1 + gate) * self.attention(layer_norm(x) * (1 + scale) + shift)
        return self.mlp(x, modulation[:, 3:])


class Stack(nnx.Module):
    """`depth` blocks one after the other, their parameters stacked along the first axis.

    Scanned, not unrolled: XLA compiles one block, several times faster, and on a CPU the unrolled
    backward pass runs at half the speed because the residual stream is computed again and again.
    """

    def __init__(self, depth: int, width: int, num_heads: int, taps: int = 0, *, rngs: nnx.Rngs):
        if depth < 1:
            raise ValueError(f"a stack needs at least one block, got depth {depth}.")

        @nnx.vmap
        def make(key: Array) -> Block:
            return Block(width, num_heads, taps, rngs=param_keys(key))

        self.blocks = make(jax.random.split(rngs.params(), depth))

    def __call__(self, x: Array, modulation: Array) -> Array:
        """x [b n d], modulation [b 6 d] -> [b n d]."""
        graphdef, params = nnx.split(self.blocks)

        def apply(h: Array, block: nnx.State) -> tuple[Array, None]:
            return nnx.merge(graphdef, block)(h, modulation), None

        return jax.lax.scan(apply, x, params)[0]
