# SPDX-License-Identifier: Apache-2.0
"""Accuracy and calibration of a discriminator by noise level, on held-out pairs.

The cross-entropy says where it can tell real pairs from mismatched ones. The rest says whether its
gradient is guidance: by how much r lowers the denoising error of the bases, and which multiple of r
would lower it most. At a best scale of 1 the gradient has the right length; far below, it is too
long, and a scale that looks modest overshoots.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmdisco_jax.discriminator.losses import cross_entropy
from mmdisco_jax.process.noising import add_noise, draw_noise
from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.types import AV, Array, DenoiseFn, LogRatioFn

Sums = dict[str, Array]


def measure_levels(
    logit: LogRatioFn,
    denoise: DenoiseFn,
    residual: Callable[[LogRatioFn], Callable[[AV, Array, Any], AV]],
    schedules: Mapping[str, Schedule],
    x0: AV,
    levels: Sequence[int],
    *,
    seed: int,
    batch_size: int,
) -> list[dict[str, float]]:
    """A row per noise level t, over clean real pairs x0 {m: [n ...]}.

    residual: how h becomes r, as `guidance.joint.residual` does.

    Columns: t; ce and accuracy against the same pairs with their sounds rotated by one; and per
    modality gain_m, the change of |eps_hat - eps|^2 summed over elements that r makes (negative is
    better), error_m, that error before, and best_scale_m.

    Raises:
      ValueError: batch_size does not divide n, or is below 2.
    """
    count = next(iter(x0.values())).shape[0]
    if batch_size < 2 or count % batch_size:
        raise ValueError(f"batches of {batch_size} must divide {count} pairs and hold two or more.")
    r = residual(logit)
    batch_sums = jax.jit(lambda x, t, key: _sums(logit, denoise, r, schedules, x, t, key))
    rows = []
    for number, t in enumerate(levels):
        level_key = jax.random.fold_in(jax.random.key(seed), number)
        parts = []
        for first in range(0, count, batch_size):
            batch = {m: x[first : first + batch_size] for m, x in x0.items()}
            parts.append(batch_sums(batch, jnp.int32(t), jax.random.fold_in(level_key, first)))
        sums = {k: float(np.sum([part[k] for part in parts])) for k in parts[0]}
        rows.append({"t": float(t), **_row(sums, count, len(parts), list(x0))})
    return rows


def _row(sums: dict[str, float], count: int, batches: int, modalities: list[str]) -> dict:
    row = {"ce": sums["ce"] / batches, "accuracy": sums["right"] / (2 * count)}
    for m in modalities:
        row[f"error_{m}"] = sums[f"missing_{m}"] / count
        row[f"gain_{m}"] = (sums[f"power_{m}"] - 2 * sums[f"product_{m}"]) / count
        row[f"best_scale_{m}"] = sums[f"product_{m}"] / max(sums[f"power_{m}"], 1e-30)
    return row


def _sums(
    logit: LogRatioFn,
    denoise: DenoiseFn,
    residual: Callable[[AV, Array, Any], AV],
    schedules: Mapping[str, Schedule],
    x0: AV,
    t: Array,
    key: Array,
) -> Sums:
    level = jnp.full((next(iter(x0.values())).shape[0],), t)
    eps = draw_noise(key, x0)
    x_t = add_noise(x0, eps, level, schedules)
    real = logit(x_t, level, None)
    fake = logit({**x_t, "audio": jnp.roll(x_t["audio"], 1, axis=0)}, level, None)
    sums = {"ce": cross_entropy(real, fake), "right": (real > 0).sum() + (fake < 0).sum()}
    base, r = denoise(x_t, level, None), residual(x_t, level, None)
    for m in x0:
        missing = eps[m] - base[m]
        sums[f"missing_{m}"] = jnp.square(missing).sum()
        sums[f"power_{m}"] = jnp.square(r[m]).sum()
        sums[f"product_{m}"] = (missing * r[m]).sum()
    return sums
