# SPDX-License-Identifier: Apache-2.0
"""Diffusion transformer layers, modulated by the timestep (DiT, Peebles and Xie 2023).

The modulation is computed once per network, and each block adds a small learned table to it
(adaLN-single, PixArt-alpha, Chen et al. 2023). This takes a third of the parameters that one
projection per block would take. There is no dropout and no state, so every layer can be
differentiated twice by its input, as the discriminator's denoising loss requires.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from mmdisco_jax.nn.attention import attention
from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.nn.time_embedding import sinusoidal_embedding
from mmdisco_jax.types import Array

ZERO = nnx.initializers.zeros_init()


class NoiseLevel(nnx.Module):
    """Timestep-conditioned modulation: t [b] -> [b num_outputs width], zero at initialisation."""

    def __init__(self, width: int, num_outputs: int, *, rngs: nnx.Rngs):
        self.width, self.num_outputs = width, num_outputs
        self.linear_1 = nnx.Linear(width, width, rngs=rngs)
        self.linear_2 = nnx.Linear(width, num_outputs * width, kernel_init=ZERO, rngs=rngs)

    def __call__(self, t: Array) -> Array:
        wave = sinusoidal_embedding(t, self.width, cos_first=True)
        hidden = nnx.silu(self.linear_1(wave))
        return self.linear_2(hidden).reshape(-1, self.num_outputs, self.width)


def layer_norm(x: Array) -> Array:
    """Layer norm without parameters: zero mean and unit variance over the last axis."""
    mean = x.mean(-1, keepdims=True)
    variance = jnp.square(x - mean).mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-6)


class Attention(nnx.Module):
    """Multi-head self-attention over tokens: [b n d] -> [b n d]."""

    def __init__(self, width: int, num_heads: int, *, rngs: nnx.Rngs):
        if width % num_heads:
            raise ValueError(f"width {width} must be a multiple of num_heads {num_heads}.")
        self.num_heads = num_heads
        self.qkv = nnx.Linear(width, 3 * width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        b, n, d = x.shape
        q, k, v = jnp.split(self.qkv(x).reshape(b, n, 3 * self.num_heads, -1), 3, axis=2)
        return self.out(attention(q, k, v).reshape(b, n, d))


class GatedMLP(nnx.Module):
    """Modulated residual MLP: x + (1 + gate) * MLP(norm(x) * (1 + scale) + shift)."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.linear_1 = nnx.Linear(width, 4 * width, rngs=rngs)
        self.linear_2 = nnx.Linear(4 * width, width, rngs=rngs)
        self.table = nnx.Param(jnp.zeros((3, width)))

    def __call__(self, x: Array, modulation: Array) -> Array:
        """Map x [b n d] and modulation [b 3 d] to [b n d]."""
        scale, shift, gate = jnp.split(modulation + self.table[...], 3, axis=1)
        h = self.linear_1(layer_norm(x) * (1 + scale) + shift)
        return x + (1 + gate) * self.linear_2(nnx.silu(h))


class Local(nnx.Module):
    """Residual depthwise convolution along the tokens, zero at initialisation.

    Attention must learn which tokens are neighbours. This layer provides it from the start, which
    helps with motion in video and with decay in sound.
    """

    def __init__(self, width: int, taps: int):
        self.kernel = nnx.Param(jnp.zeros((taps, width)))

    def __call__(self, x: Array) -> Array:
        """Map x [b n d] to [b n d]; tokens beyond the ends count as zeros."""
        taps, n = self.kernel[...].shape[0], x.shape[1]
        # A banded matrix per feature is the fastest form on every backend when tokens are few.
        shifts = jnp.stack([jnp.eye(n, k=k - taps // 2) for k in range(taps)])
        band = jnp.einsum("kmn,kd->mnd", shifts, self.kernel[...])
        return x + jnp.einsum("bnd,mnd->bmd", layer_norm(x), band)


class Block(nnx.Module):
    """Diffusion transformer block: optional local convolution, modulated attention and MLP.

    Args:
      taps: odd length of the local convolution, or 0 for none.

    Raises:
      ValueError: `taps` is even, or `num_heads` does not divide `width`.
    """

    def __init__(self, width: int, num_heads: int, taps: int = 0, *, rngs: nnx.Rngs):
        if taps and taps % 2 == 0:
            raise ValueError(f"the local convolution's taps must be odd or 0, got {taps}.")
        self.local = Local(width, taps) if taps else None
        self.attention = Attention(width, num_heads, rngs=rngs)
        self.mlp = GatedMLP(width, rngs=rngs)
        self.table = nnx.Param(jnp.zeros((3, width)))

    def __call__(self, x: Array, modulation: Array) -> Array:
        """Map x [b n d] and modulation [b 6 d] to [b n d]."""
        if self.local is not None:
            x = self.local(x)
        scale, shift, gate = jnp.split(modulation[:, :3] + self.table[...], 3, axis=1)
        x = x + (1 + gate) * self.attention(layer_norm(x) * (1 + scale) + shift)
        return self.mlp(x, modulation[:, 3:])


class Stack(nnx.Module):
    """Stack of `depth` transformer blocks with parameters stacked along the first axis.

    The blocks are scanned, not unrolled. XLA then compiles only one of them, several times faster;
    and on a CPU the unrolled backward pass runs at half the speed, because XLA recomputes the
    residual stream in it.
    """

    def __init__(self, depth: int, width: int, num_heads: int, taps: int = 0, *, rngs: nnx.Rngs):
        if depth < 1:
            raise ValueError(f"a stack needs at least one block, got depth {depth}.")

        @nnx.vmap
        def make(key: Array) -> Block:
            return Block(width, num_heads, taps, rngs=param_keys(key))

        self.blocks = make(jax.random.split(rngs.params(), depth))

    def __call__(self, x: Array, modulation: Array) -> Array:
        """Map x [b n d] and modulation [b 6 d] to [b n d]."""
        graphdef, params = nnx.split(self.blocks)

        def apply(h: Array, block: nnx.State) -> tuple[Array, None]:
            return nnx.merge(graphdef, block)(h, modulation), None

        return jax.lax.scan(apply, x, params)[0]
