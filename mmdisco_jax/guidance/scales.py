# SPDX-License-Identifier: Apache-2.0
"""Guidance scales: static numbers, traced numbers, or one number per sample.

A static 0 is the identity bit for bit, because nothing is computed. A traced 0 multiplies what was
computed, with no `where`: finite values keep theirs (-0.0 may become 0.0), a residual that is not
finite stays visible as NaN, and the gradient with respect to the scale is the residual's.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmdisco_jax.process.predictions import per_sample
from mmdisco_jax.types import Array

# A number is static: programs are compiled for it. An array [] or [b] is an argument of them.
Scale = float | Array


def known_scales(scales: Mapping[str, Any], modalities: Iterable[str]) -> dict[str, Scale]:
    """The scales, with lists as arrays [b]; any of the modalities may have none.

    Raises:
      ValueError: a scale of another modality.
    """
    unknown = sorted(set(scales) - set(modalities))
    if unknown:
        raise ValueError(
            f"there are guidance scales of {unknown}, but the modalities are "
            f"{sorted(modalities)}: name scales by them."
        )
    return {m: _as_scale(scale) for m, scale in scales.items()}


def _as_scale(scale: Any) -> Any:
    if isinstance(scale, list | tuple):
        return np.asarray(scale, np.float32)
    return scale.item() if isinstance(scale, np.generic) else scale


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
