# SPDX-License-Identifier: Apache-2.0
"""Multi-head dot-product attention, with cuDNN's flash kernels where the hardware has them."""

import re

import jax
import jax.numpy as jnp
from jax import Array

# cuDNN's flash attention accepts these sizes on every GPU generation that has it (Ampere, 8.0, on).
_FLASH_CAPABILITY = 8.0
_FLASH_HEAD = 128
# With fewer queries XLA's own kernel is as fast, and cuDNN limits batch times heads.
_FLASH_QUERIES = 128


def attention(
    queries: Array,
    keys: Array,
    values: Array,
    *,
    mask: Array | None = None,
    is_causal: bool = False,
    flash: bool = False,
) -> Array:
    """Compute softmax(q k^T / sqrt(d)) v for each head; scores and softmax are float32.

    Args:
      queries: [b n heads d].
      keys, values: [b m heads d].
      mask: bool, broadcastable to [b heads n m]; a query ignores the keys where it is False.
      is_causal: a query at place i sees the keys at places up to i only.
      flash: use cuDNN's flash attention where hardware, dtype and shape allow it. It never stores
        the n x m scores, but it cannot be differentiated twice, so networks whose gradient is part
        of a loss must leave it off.

    Returns:
      [b n heads d].
    """
    implementation = "cudnn" if flash and _flash_fits(queries) else "xla"
    return jax.nn.dot_product_attention(
        queries, keys, values, mask=mask, is_causal=is_causal, implementation=implementation
    )


def einsum_attention(queries: Array, keys: Array, values: Array) -> Array:
    """Compute the unmasked `attention` as two einsums, for any number of leading axes.

    MM-Diffusion's U-Net makes about a hundred calls, and XLA compiles this form in two thirds of
    the time that `attention` takes. It scales the queries instead of the scores, so the two differ
    in the last bits.

    Args:
      queries: [... n heads d].
      keys, values: [... m heads d].

    Returns:
      [... n heads d]; scores and softmax are float32.
    """
    scores = jnp.einsum(
        "...qhd,...khd->...hqk",
        queries * queries.shape[-1] ** -0.5,
        keys,
        preferred_element_type=jnp.float32,
    )
    weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
    return jnp.einsum("...hqk,...khd->...qhd", weights, values)


def _flash_fits(queries: Array) -> bool:
    if jax.default_backend() != "gpu" or queries.dtype not in (jnp.bfloat16, jnp.float16):
        return False
    # NVIDIA's devices report a number such as "9.0"; others report another word or nothing.
    capability = str(getattr(jax.devices()[0], "compute_capability", ""))
    if not re.fullmatch(r"\d+\.\d+", capability) or float(capability) < _FLASH_CAPABILITY:
        return False
    num_queries, head = queries.shape[1], queries.shape[-1]
    return num_queries >= _FLASH_QUERIES and head <= _FLASH_HEAD and head % 8 == 0
