# SPDX-License-Identifier: Apache-2.0
"""Classifier-free guidance (Ho and Salimans 2022): uncond + g * (cond - uncond)."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from mmdisco_jax.types import AV, Array, Cond

Field = Callable[[AV, Array, Cond], AV]


def classifier_free(field: Field, scales: Mapping[str, float], uncond: Cond) -> Field:
    """`field` moved away from what it says without the condition, by a scale per modality.

    Works on noise predictions and, because it is linear, on the joint guidance's residuals too.
    g = 1 is the conditional field, 0 the unconditional one. Both run as one batch.

    Args:
      field: (x, t, cond) -> {modality: [b ...]}.
      scales: g of each modality.
      uncond: the empty condition, of the same tree and shapes as every `cond` to come.
    """

    def guided(x: AV, t: Array, cond: Cond) -> AV:
        if all(g == 1 for g in scales.values()):
            return field(x, t, cond)
        if all(g == 0 for g in scales.values()):
            return field(x, t, uncond)
        twice = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), (x, t, cond), (x, t, uncond))
        out = field(*twice)
        batch = t.shape[0]
        return {m: out[m][batch:] + scales[m] * (out[m][:batch] - out[m][batch:]) for m in out}

    return guided
