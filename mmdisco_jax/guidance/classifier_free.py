# SPDX-License-Identifier: Apache-2.0
"""Classifier-free guidance (Ho and Salimans 2022): uncond + g * (cond - uncond)."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmdisco_jax.callables import unwrap_static, wrap_static
from mmdisco_jax.guidance.scales import Scale, is_static, times
from mmdisco_jax.types import AV, Array, Cond

Field = Callable[[AV, Array, Cond], AV]


def classifier_free(field: Field, scales: Mapping[str, Scale], uncond: Cond) -> Field:
    """Classifier-free guidance of noise predictions, or of joint guidance's residuals.

    It is linear, and so serves both. g = 1 is the conditional field, 0 the unconditional one. Both
    run as one batch, unless the scales are all 1 or all 0 and static.

    Args:
      field: (x, t, cond) -> {modality: [b ...]}, a function or a callable pytree.
      scales: g of each modality: a number, which is static, or an array [] or [b], which may be
        traced. A modality without one has 0.
      uncond: the empty condition, of the same tree and shapes as every `cond` to come.

    Returns:
      A callable pytree with the arrays of `field`, `scales` and `uncond` as its leaves.
    """
    return ClassifierFree(wrap_static(field), wrap_static(dict(scales)), wrap_static(uncond))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class ClassifierFree:
    """Field under classifier-free guidance; made by `classifier_free`."""

    field: Any
    scales: Any
    uncond: Any

    def __call__(self, x: AV, t: Array, cond: Cond) -> AV:
        field, scales, uncond = map(unwrap_static, (self.field, self.scales, self.uncond))
        scales = {m: scales.get(m, 0) for m in x}
        if all(is_static(g) and g == 1 for g in scales.values()):
            return field(x, t, cond)
        if all(is_static(g) and g == 0 for g in scales.values()):
            return field(x, t, uncond)
        twice = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), (x, t, cond), (x, t, uncond))
        out = field(*twice)
        b = t.shape[0]
        return {m: out[m][b:] + times(scales[m], out[m][:b] - out[m][b:]) for m in out}
