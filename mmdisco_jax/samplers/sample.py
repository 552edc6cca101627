# SPDX-License-Identifier: Apache-2.0
"""The only sampling loop: a `lax.scan` over steps of a denoiser and a stepper per modality."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.samplers.api import Stepper
from mmdisco_jax.samplers.noise import NoiseFn
from mmdisco_jax.types import AV, Array, Cond, DenoiseFn


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
      x_T: noise {modality: [b ...]}, float32 (or float64, where JAX has it enabled).
      steppers, schedules: one of each per modality; the time grid is common to all.
      timesteps: host int array [n], strictly falling.
      noise: (step, draw, modality, shape) -> array; see `samplers.noise`.
      num_substeps: repeats of each step; before each repeat the sample is noised back to the
        step's level (the official `joint_num_steps`).
      on_step: host function of the step number, called without waiting for the device.
      keep_every: also return every k-th x_t; costs n // k times the memory of a sample.

    Returns:
      Samples {modality: [b ...]}, in x_T's precision; with keep_every, (samples,
      {modality: [n // k, b, ...]}).
    """
    n, modalities = len(timesteps), sorted(x_T)
    _check(num_substeps, keep_every, n)
    tables = {
        m: step_tables(steppers[m], schedules[m], timesteps, num_substeps, x_T[m].dtype)
        for m in modalities
    }
    model = denoise if hasattr(denoise, "init") else _Memoryless(denoise)
    advance = _advance(model, steppers, noise, cond, num_substeps)

    def body(carry: Any, row: Any):
        inner, kept = carry
        inner = advance(inner, row)
        if keep_every:  # the last write of slot i is that of step (i + 1) k - 1
            slot, x = row[0] // keep_every, inner[0]
            kept = {m: kept[m].at[slot].set(x[m], mode="drop") for m in modalities}
        if on_step is not None:
            jax.debug.callback(on_step, row[0])
        return (inner, kept), None

    start = (x_T, {m: steppers[m].init(x_T[m]) for m in modalities}, model.init(x_T))
    room = n // keep_every if keep_every else 0
    kept = {m: jnp.zeros((room, *x_T[m].shape), x_T[m].dtype) for m in modalities}
    rows = (jnp.arange(n, dtype=jnp.int32), jnp.asarray(timesteps, jnp.int32), tables)
    ((x, _, _), kept), _ = jax.lax.scan(body, (start, kept), rows)
    return (x, kept) if keep_every else x


def _advance(
    model: Any, steppers: Mapping[str, Stepper], noise: NoiseFn, cond: Cond, num_substeps: int
) -> Callable[[Any, Any], Any]:
    """One step of all modalities: (x, stepper memories, denoiser memory), row -> the same."""

    def advance(carry: Any, row: Any) -> Any:
        (x, memory, plan), (step, t, rows) = carry, row
        batch = next(iter(x.values())).shape[0]
        level = jnp.full((batch,), t, jnp.int32)

        def substep(j: Any, inner: Any) -> Any:
            x, _, plan = inner
            if num_substeps > 1:
                z = {m: noise(step, 2 * j, m, x[m].shape) for m in x}
                x = {m: jnp.where(j > 0, renoise(x[m], rows[m], z[m]), x[m]) for m in x}
            eps, plan = model(x, level, cond, step, plan)
            z = {m: noise(step, 2 * j + 1, m, x[m].shape) for m in x}
            # Every substep remembers the step before, not its sibling.
            both = {m: steppers[m].step(x[m], eps[m], rows[m], memory[m], z[m]) for m in x}
            return *({m: pair[i] for m, pair in both.items()} for i in (0, 1)), plan

        if num_substeps == 1:
            return substep(0, carry)
        # A loop, not copies: the denoiser is compiled once whatever the number of substeps.
        return jax.lax.fori_loop(0, num_substeps, substep, (x, memory, plan))

    return advance


@dataclasses.dataclass(frozen=True)
class _Memoryless:
    """A DenoiseFn, as the loop calls denoisers."""

    denoise: DenoiseFn

    def init(self, x: AV) -> None:
        del x

    def __call__(self, x: AV, t: Array, cond: Cond, step: Array, memory: None) -> tuple[AV, None]:
        del step
        return self.denoise(x, t, cond), memory


def _check(num_substeps: int, keep_every: int | None, n: int) -> None:
    if num_substeps < 1:
        raise ValueError(f"num_substeps must be at least 1, got {num_substeps}.")
    if keep_every is not None and not 1 <= keep_every <= n:
        raise ValueError(f"keep_every must be in 1..{n} (the number of steps), got {keep_every}.")


def step_tables(
    stepper: Stepper, schedule: Schedule, timesteps: np.ndarray, num_substeps: int, dtype: Any
) -> dict[str, Array]:
    """A stepper's coefficients [n] on the device, with those of `renoise` if there are substeps."""
    tables = stepper.tables(schedule, timesteps)
    if num_substeps > 1:
        ratio = np.square(tables["alpha"]) / tables["abar_next"]
        tables |= {"renoise_keep": np.sqrt(ratio), "renoise_add": np.sqrt(1 - ratio)}
    return {name: jnp.asarray(value, dtype) for name, value in tables.items()}


def renoise(x: Array, row: dict[str, Array], noise: Array) -> Array:
    """Back from the step's end to its start: x_t = sqrt(abar_t / abar_next) x + sqrt(1 - .) z."""
    return row["renoise_keep"] * x + row["renoise_add"] * noise
