# SPDX-License-Identifier: Apache-2.0
"""Sinusoidal embedding of the diffusion timestep, and its two-layer projection."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array


def sinusoidal_embedding(
    t: Array, dim: int, *, cos_first: bool = False, freq_shift: float = 0.0, max_period: float = 1e4
) -> Array:
    """Sinusoidal timestep embedding with `dim // 2` geometric frequencies (Vaswani et al. 2017).

    Frequency k is max_period ** (-k / (dim // 2 - freq_shift)). MMDisCo's discriminator has sines
    first and freq_shift 1; the other networks have cosines first and freq_shift 0.

    Args:
      t: timesteps [b], integer or float.
      dim: even size of the embedding.
      cos_first: put the cosines before the sines.

    Returns:
      float32 [b, dim].

    Raises:
      ValueError: `dim` is odd or leaves no frequency.
    """
    half = dim // 2
    if dim % 2 or half <= freq_shift:
        raise ValueError(f"dim {dim} must be even and above {2 * freq_shift:g} (2 * freq_shift)")
    exponent = jnp.arange(half, dtype=jnp.float32) / (half - freq_shift)
    angle = t.astype(jnp.float32)[:, None] * jnp.exp(-math.log(max_period) * exponent)[None]
    waves = [jnp.sin(angle), jnp.cos(angle)]
    return jnp.concatenate(waves[::-1] if cos_first else waves, axis=-1)


class TimestepEmbedding(nnx.Module):
    """Two-layer projection of a timestep embedding, with SiLU between: [b in_dim] -> [b out_dim].

    Attribute names are those of diffusers.
    """

    def __init__(self, in_dim: int, out_dim: int, *, rngs: nnx.Rngs):
        self.linear_1 = nnx.Linear(in_dim, out_dim, rngs=rngs)
        self.linear_2 = nnx.Linear(out_dim, out_dim, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.linear_2(jax.nn.silu(self.linear_1(x)))
