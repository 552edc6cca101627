# SPDX-License-Identifier: Apache-2.0
"""The only sampling loop: a `lax.scan` over steps of a denoiser and a stepper per modality."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.samplers.api import Stepper, Times
from mmdisco_jax.samplers.grids import TimeGrid
from mmdisco_jax.samplers.noise import NoiseFn
from mmdisco_jax.types import AV, Array, Cond, DenoiseFn


def sample(
    denoise: Any,
    x_T: AV,
    steppers: Mapping[str, Stepper],
    schedules: Mapping[str, Schedule],
    timesteps: Times,
    noise: NoiseFn,
    *,
    cond: Cond = None,
    num_substeps: int = 1,
    keep_every: int | None = None,
) -> Any:
    """Integrates from noise to samples, in one scan.

    Args:
      denoise: a DenoiseFn; or an object with `init(x) -> memory` and
        `(x, t, cond, step, memory) -> (eps, memory)`, such as `PlannedJoint`.
      x_T: noise {modality: [b ...]}, float32 (or float64, where JAX has it enabled).
      steppers, schedules: one of each per modality; the time grid is common to all.
      timesteps: host int array [n], strictly falling; or a TimeGrid of n levels. There is one
        call of the model for each.
      noise: (step, draw, modality, shape) -> array; see `samplers.noise`.
      num_substeps: repeats of each step; before each repeat the sample is noised back to the
        step's level (the official `joint_num_steps`).
      keep_every: also return every k-th x_t; costs n // k times the memory of a sample.

    Returns:
      Samples {modality: [b ...]}, in x_T's precision; with keep_every, (samples,
      {modality: [n // k, b, ...]}).
    """
    run = Sampling(denoise, steppers, schedules, timesteps, noise, cond, num_substeps)
    n = len(timesteps)
    if keep_every is None:
        return run.proceed(run.begin(x_T), 0, n)[0]
    if not 1 <= keep_every <= n:
        raise ValueError(f"keep_every must be in 1..{n} (the number of steps), got {keep_every}.")

    def body(carry: Any, row: Any):
        inner, kept = carry
        inner = run.step(inner, row)
        # The last write of slot i is that of step (i + 1) k - 1.
        slot, x = row[0] // keep_every, inner[0]
        return (inner, {m: kept[m].at[slot].set(x[m], mode="drop") for m in x}), None

    kept = {m: jnp.zeros((n // keep_every, *v.shape), v.dtype) for m, v in x_T.items()}
    ((x, _, _), kept), _ = jax.lax.scan(body, (run.begin(x_T), kept), run.rows(x_T))
    return x, kept


@dataclasses.dataclass(frozen=True)
class Sampling:
    """What `sample` does, in pieces: for a caller who wants to do something between some steps.

    A carry is (x, memories of the steppers, memory of the denoiser); its first part is the sample.
    """

    denoise: Any
    steppers: Mapping[str, Stepper]
    schedules: Mapping[str, Schedule]
    timesteps: Times
    noise: NoiseFn
    cond: Cond = None
    num_substeps: int = 1

    def __post_init__(self):
        if self.num_substeps < 1:
            raise ValueError(f"num_substeps must be at least 1, got {self.num_substeps}.")
        if not hasattr(self.denoise, "init"):
            object.__setattr__(self, "denoise", _Memoryless(self.denoise))

    def begin(self, x_T: AV) -> Any:
        """The carry before the first step."""
        return x_T, {m: self.steppers[m].init(x) for m, x in x_T.items()}, self.denoise.init(x_T)

    def proceed(self, carry: Any, first: Any, length: int) -> Any:
        """The carry after `length` steps from number `first` on, which may be traced.

        So a long sampling can be one program, called again and again, with a sign of life between.
        (A callback out of one long scan would keep JAX from storing the program in its cache.)
        """
        rows = self.rows(carry[0])
        some = jax.tree.map(lambda v: jax.lax.dynamic_slice_in_dim(v, first, length), rows)
        return jax.lax.scan(lambda carry, row: (self.step(carry, row), None), carry, some)[0]

    def rows(self, x: AV) -> Any:
        """(step, t, coefficients of each modality), all [n]."""
        tables = {
            m: step_tables(
                self.steppers[m], self.schedules[m], self.timesteps, self.num_substeps, x[m].dtype
            )
            for m in sorted(x)
        }
        n, times = len(self.timesteps), self.timesteps
        told = times.model_times if isinstance(times, TimeGrid) else np.asarray(times, np.int32)
        return jnp.arange(n, dtype=jnp.int32), jnp.asarray(told), tables

    def step(self, carry: Any, row: Any) -> Any:
        """One step of all modalities."""
        (x, memory, plan), (step, t, rows) = carry, row
        batch = next(iter(x.values())).shape[0]
        level = jnp.full((batch,), t)

        def substep(j: Any, inner: Any) -> Any:
            x, _, plan = inner
            if self.num_substeps > 1:
                z = {m: self.noise(step, 2 * j, m, x[m].shape) for m in x}
                x = {m: jnp.where(j > 0, renoise(x[m], rows[m], z[m]), x[m]) for m in x}
            eps, plan = self.denoise(x, level, self.cond, step, plan)
            z = {m: self.noise(step, 2 * j + 1, m, x[m].shape) for m in x}
            # Every substep remembers the step before, not its sibling.
            both = {m: self.steppers[m].step(x[m], eps[m], rows[m], memory[m], z[m]) for m in x}
            return *({m: pair[i] for m, pair in both.items()} for i in (0, 1)), plan

        if self.num_substeps == 1:
            return substep(0, carry)
        # A loop, not copies: the denoiser is compiled once whatever the number of substeps.
        return jax.lax.fori_loop(0, self.num_substeps, substep, (x, memory, plan))


@dataclasses.dataclass(frozen=True)
class _Memoryless:
    """A DenoiseFn, as the loop calls denoisers."""

    denoise: DenoiseFn

    def init(self, x: AV) -> None:
        del x

    def __call__(self, x: AV, t: Array, cond: Cond, step: Array, memory: None) -> tuple[AV, None]:
        del step
        return self.denoise(x, t, cond), memory


def step_tables(
    stepper: Stepper, schedule: Schedule, timesteps: Times, num_substeps: int, dtype: Any
) -> dict[str, Array]:
    """A stepper's coefficients [n] on the device, with those of `renoise` if there are substeps."""
    if num_substeps > 1 and getattr(stepper, "staged", False):
        raise ValueError(
            f"num_substeps is {num_substeps}, but {stepper} takes a step in several rows, none of "
            "which can be repeated by itself: use one substep, or its multistep method."
        )
    tables = stepper.tables(schedule, timesteps)
    if num_substeps > 1:
        ratio = np.square(tables["alpha"]) / tables["abar_next"]
        tables |= {"renoise_keep": np.sqrt(ratio), "renoise_add": np.sqrt(1 - ratio)}
    return {name: jnp.asarray(value, dtype) for name, value in tables.items()}


def renoise(x: Array, row: dict[str, Array], noise: Array) -> Array:
    """Back from the step's end to its start: x_t = sqrt(abar_t / abar_next) x + sqrt(1 - .) z."""
    return row["renoise_keep"] * x + row["renoise_add"] * noise
