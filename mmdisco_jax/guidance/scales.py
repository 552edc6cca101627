# SPDX-License-Identifier: Apache-2.0
"""Guidance scales: static numbers, traced numbers, or one number per sample."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmdisco_jax.process.predictions import per_sample
from mmdisco_jax.types import Array

# A number is static: programs are compiled for it. An array [] or [b] is an argument of them.
Scale = float | Array


def is_static(scale: Any) -> bool:
    """True for a scale that is known when a program is compiled."""
    return not isinstance(scale, jax.Array | np.ndarray)


def times(scale: Scale, x: Array) -> Array:
    """`scale` times x [b ...], in x's precision; ValueError for a scale of another shape."""
    if is_static(scale):
        return scale * x
    if jnp.shape(scale) not in ((), x.shape[:1]):
        raise ValueError(
            f"a guidance scale has shape {jnp.shape(scale)}, but must be a number or have one "
            f"number for each of {x.shape[0]} samples."
        )
    return per_sample(jnp.asarray(scale, x.dtype), x) * x
