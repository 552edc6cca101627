# SPDX-License-Identifier: Apache-2.0
"""The sampling loop, the only one: a `lax.scan` over steps of a denoiser and a stepper per modality."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.samplers.api import Stepper
from mmdisco_jax.samplers.noise import NoiseFn
from mmdisco_jax.types import AV, Array, Cond


def sample(
    denoise: Any,
    x_T: AV,
    steppers: Mapping[str, Stepper],
    schedules: Mapping[str, Schedule],
    timesteps: np.ndarray,
    noise: NoiseFn,
    *,
    cond: Cond = None,
    num_substeps: int = 1,
    on_step: Callable[[Any], None] | None = None,
    keep_every: int | None = None,
) -> Any:
    """Integrates from noise to samples.

    Args:
      denoise: a DenoiseFn; or an object with `init(x) -> memory` and
        `(x, t, cond, step, memory) -> (eps, memory)`, such as `PlannedJoint`.
      x_T: noise {modality: [b ...]}.
      steppers, schedules: one of each per modality; the time grid is common to all.
      timesteps: host int array [n], strictly falling.
      noise: (step, draw, modality, shape) -> array; see `samplers.noise`.
      num_substeps: repeats of each step; before each repeat the sample is noised back to the
        step's level (the official `joint_num_steps`).
      on_step: host function of the step number, called without waiting for the device.
      keep_every: also return every k-th x_t; costs n / k times the memory.

    Returns:
      Samples {modality: [b ...]}; with keep_every, (samples, {modality: [n // k, b, ...]}).
    """
    if num_substeps < 1:
        raise ValueError(f"num_substeps must be at least 1, got {num_substeps}.")
    modalities = sorted(x_T)
    tables = {m: _tables(steppers[m], schedules[m], timesteps, num_substeps) for m in modalities}
    batch = x_T[modalities[0]].shape[0]
    remembers = hasattr(denoise, "init")

    def one_step(x: AV, memory: Any, denoise_memory: Any, row: Any, j: int):
        step, t, rows = row
        if j:
            x = {m: _renoise(x[m], rows[m], noise(step, 2 * j, m, x[m].shape)) for m in modalities}
        level = jnp.full((batch,), t, jnp.int32)
        if remembers:
            eps, denoise_memory = denoise(x, level, cond, step, denoise_memory)
        else:
            eps = denoise(x, level, cond)
        moved = {
            m: steppers[m].step(
                x[m], eps[m], rows[m], memory[m], noise(step, 2 * j + 1, m, x[m].shape)
            )
            for m in modalities
        }
        return {m: moved[m][0] for m in modalities}, {m: moved[m][1] for m in modalities}, denoise_memory

    def body(carry: Any, row: Any):
        for j in range(num_substeps):
            carry = one_step(*carry, row, j)
        if on_step is not None:
            jax.debug.callback(on_step, row[0])
        return carry, (carry[0] if keep_every else None)

    n = len(timesteps)
    memory = {m: steppers[m].init(x_T[m]) for m in modalities}
    start = (x_T, memory, denoise.init(x_T) if remembers else None)
    rows = (jnp.arange(n, dtype=jnp.int32), jnp.asarray(timesteps, jnp.int32), tables)
    (x, _, _), kept = jax.lax.scan(body, start, rows)
    if keep_every:
        return x, jax.tree.map(lambda a: a[keep_every - 1 :: keep_every], kept)
    return x


def _tables(
    stepper: Stepper, schedule: Schedule, timesteps: np.ndarray, num_substeps: int
) -> dict[str, Array]:
    tables = stepper.tables(schedule, timesteps)
    if num_substeps > 1:
        ratio = np.square(tables["alpha"]) / tables["abar_next"]
        tables |= {"renoise_keep": np.sqrt(ratio), "renoise_add": np.sqrt(1 - ratio)}
    return {name: jnp.asarray(value, jnp.float32) for name, value in tables.items()}


def _renoise(x: Array, row: dict[str, Array], noise: Array) -> Array:
    """Back from the step's end to its start: x_t = sqrt(abar_t / abar_next) x + sqrt(1 - .) z."""
    return row["renoise_keep"] * x + row["renoise_add"] * noise
