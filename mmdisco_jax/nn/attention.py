# SPDX-License-Identifier: Apache-2.0
"""Attention of many short sequences at once, and of long ones with flash kernels."""

import re

import jax
import jax.numpy as jnp
from jax import Array


def attend(queries: Array, keys: Array, values: Array) -> Array:
    """softmax(q k^T / sqrt(d)) v: [... n heads d], [... m heads d] twice -> [... n heads d].

    Scores and softmax are float32. Written out because XLA compiles it in two thirds of the time
    that `jax.nn.dot_product_attention` takes, and a U-Net has a hundred of them.
    """
    scores = jnp.einsum(
        "...qhd,...khd->...hqk",
        queries * queries.shape[-1] ** -0.5,
        keys,
        preferred_element_type=jnp.float32,
    )
    weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
    return jnp.einsum("...hqk,...khd->...qhd", weights, values)


# What cuDNN's flash attention takes on every generation that has it, from Ampere (8.0) on.
_FLASH_CAPABILITY = 8.0
_FLASH_HEAD = 128
# Below that many queries one kernel of XLA's does as well, and cuDNN bounds batch times heads.
_FLASH_QUERIES = 128


def dot_product_attend(queries: Array, keys: Array, values: Array) -> Array:
    """softmax(q k^T / sqrt(d)) v: [b n heads d], [b m heads d] twice -> [b n heads d].

    By `jax.nn.dot_product_attention`: cuDNN's flash attention where hardware, dtype and shape allow
    it, which keeps no n x m scores in memory, and XLA elsewhere. Scores and softmax are float32.
    """
    flash = "cudnn" if _flash_fits(queries) else "xla"
    return jax.nn.dot_product_attention(queries, keys, values, implementation=flash)


def _flash_fits(queries: Array) -> bool:
    if jax.default_backend() != "gpu" or queries.dtype not in (jnp.bfloat16, jnp.float16):
        return False
    # "9.0" on NVIDIA's devices, another word or nothing on others'.
    capability = str(getattr(jax.devices()[0], "compute_capability", ""))
    if not re.fullmatch(r"\d+\.\d+", capability) or float(capability) < _FLASH_CAPABILITY:
        return False
    num_queries, head = queries.shape[1], queries.shape[-1]
    return num_queries >= _FLASH_QUERIES and head <= _FLASH_HEAD and head % 8 == 0
