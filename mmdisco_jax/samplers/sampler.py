# SPDX-License-Identifier: Apache-2.0
"""Sampler: from noise to samples, by a denoiser and a stepper per modality, in one `lax.scan`."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from mmdisco_jax.callables import Structure, split
from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.samplers.api import PlannedDenoiser, Row, Stepper
from mmdisco_jax.samplers.given import Given, check_given, held_step
from mmdisco_jax.samplers.levels import Levels, common
from mmdisco_jax.samplers.noise import NoiseFn, initial, keyed, sample_keys
from mmdisco_jax.types import AV, Array, Cond, DenoiseFn

Shapes = Mapping[str, tuple[int, ...]]
OnSteps = Callable[[int], Any]


class Carry(NamedTuple):
    """State of a sampling between two steps.

    x: the samples {modality: [b ...]}; states: of the steppers; planned: what a planned denoiser
    carries, None of others.
    """

    x: AV
    states: dict[str, Any]
    planned: Any


class Rows(NamedTuple):
    """Inputs of the steps of a sampling: arrays [n ...], or the values of one step.

    step: int32 number; t: level for the model; tables: coefficients of each modality; plan: columns
    of a planned denoiser.
    """

    step: Array
    t: Array
    tables: dict[str, Row]
    plan: dict[str, Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Sampler:
    """Sampler of any number of modalities that share a path of noise levels.

        sampler = Sampler({m: DDIM() for m in shapes}, schedules, levels(schedules, 50))
        x_0 = sampler.run(denoise, shapes, seed=0, indices=range(8))

    A denoiser is (x {modality: [b ...]}, t [b], cond) -> eps {modality: [b ...]}. If it is a plain
    function, programs are compiled for this very function, and arrays that it refers to become
    constants of theirs; networks belong into a callable pytree (see `mmdisco_jax.callables`), such
    as `jax.tree_util.Partial(function, params)`, whose arrays are arguments.

    Attributes:
      steppers, schedules: one of each per modality.
      levels: the path; the model is called once for each level.
      num_substeps: repeats of each step; before each repeat the sample is noised back to the
        step's level (the official `joint_num_steps`).

    Raises:
      ValueError: a stepper without a schedule, schedules of different lengths, levels beyond them,
        or substeps of a stepper that takes a step in several rows.
    """

    steppers: Mapping[str, Stepper]
    schedules: Mapping[str, Schedule]
    levels: Levels
    num_substeps: int = 1

    def __post_init__(self):
        missing = sorted(set(self.steppers) - set(self.schedules))
        if missing or not self.steppers:
            raise ValueError(
                f"there are steppers of {sorted(self.steppers)} and schedules of "
                f"{sorted(self.schedules)}: give one of each for every modality."
            )
        common({m: self.schedules[m] for m in self.steppers})
        if self.num_substeps < 1:
            raise ValueError(f"num_substeps must be at least 1, got {self.num_substeps}.")
        for m, stepper in self.steppers.items():
            step_tables(stepper, self.schedules[m], self.levels, self.num_substeps)

    def init(self, denoise: DenoiseFn, x_T: AV) -> Carry:
        """The carry before the first step, from noise {modality: [b ...]}."""
        states = {m: self.steppers[m].init(x) for m, x in x_T.items()}
        return Carry(x_T, states, denoise.init(x_T) if self._columns(denoise) else None)

    def rows(self, denoise: DenoiseFn, x: AV) -> Rows:
        """Inputs of all steps, to be scanned over; coefficients in the precision of x."""
        tables = {}
        for m in sorted(x):
            host = step_tables(self.steppers[m], self.schedules[m], self.levels, self.num_substeps)
            tables[m] = {name: jnp.asarray(v, x[m].dtype) for name, v in host.items()}
        plan = {name: jnp.asarray(v) for name, v in self._columns(denoise).items()}
        steps = jnp.arange(len(self.levels), dtype=jnp.int32)
        return Rows(steps, jnp.asarray(self.levels.model_times), tables, plan)

    def step(
        self,
        denoise: DenoiseFn,
        carry: Carry,
        row: Rows,
        noise: NoiseFn,
        cond: Cond = None,
        given: Given | None = None,
    ) -> Carry:
        """One step of all modalities; pure, for a caller's own jit or scan over `rows`."""
        if given is None:
            return self._advance(denoise, carry, row, noise, cond)

        def advance(x: AV) -> Carry:
            return self._advance(denoise, carry._replace(x=x), row, noise, cond)

        return held_step(given, advance, carry.x, row.tables)

    def run(
        self,
        denoise: DenoiseFn,
        shapes: Shapes | None = None,
        *,
        seed: int = 0,
        indices: ArrayLike | None = None,
        cond: Cond = None,
        given: AV | None = None,
        given_weight: float = 0.0,
        loss_scale: float = 1.0,
        keep_every: int | None = None,
        on_steps: OnSteps | None = None,
        x_T: Mapping[str, ArrayLike] | None = None,
        noise: NoiseFn | None = None,
    ) -> Any:
        """Samples; compiles at the first call, and again only for other shapes or functions.

        Sample i is a function of (seed, its index) and its conditions, whatever its batch. Within a
        caller's jit, vmap or grad, all steps become part of the caller's program.

        Args:
          denoise: a function or a callable pytree; see the class.
          shapes: {modality: shape of a sample}; of x_T, if that is given.
          seed: of x_T and of the steps' noise.
          indices: whole numbers [b], in any sequence or array: which samples of the seed.
          cond: handed to the denoiser.
          given: clean signals {modality: [b ...]} of some modalities, that samples are held to.
          given_weight, loss_scale: strength of reconstruction guidance; see `Given`.
          keep_every: also return every k-th x_t; costs n // k times the memory of a sample.
          on_steps: told of each number of steps that are done, about ten times.
          x_T: start {modality: [b ...]} instead of the seed's; float32, or float64 where enabled.
          noise: (step, draw, modality, shape) -> array instead of the seed's; see `samplers.noise`.

        Returns:
          Samples {modality: [b ...]}, in x_T's precision; with keep_every, (samples,
          {modality: [n // k, b, ...]}).

        Raises:
          ValueError: arguments that do not fit each other.
        """
        job, inputs = self._job(
            denoise, noise, shapes, seed, indices, cond, given, given_weight, loss_scale, x_T,
            keep_every,
        )  # fmt: skip
        if _in_trace(inputs):
            if on_steps:
                raise ValueError("on_steps has no meaning in a traced function: leave it out.")
            carry, kept = self._proceed(job, inputs, self._begin(job, inputs), 0, len(self.levels))
            return (carry.x, kept) if keep_every else carry.x
        begin, proceed = self._programs
        chunk = chunk_of(len(self.levels))
        carry, kept = _drive(
            lambda: begin(job, inputs),
            lambda carry, first: proceed(job, inputs, carry, first, chunk),
            len(self.levels),
            on_steps,
        )
        return (carry.x, kept) if keep_every else carry.x

    def compile(
        self,
        denoise: DenoiseFn,
        shapes: Shapes,
        *,
        seed: int = 0,
        indices: ArrayLike,
        cond: Cond = None,
        given: AV | None = None,
        given_weight: float = 0.0,
        loss_scale: float = 1.0,
    ) -> "CompiledSampler":
        """Compile `run` ahead of time, for arguments of these shapes and shardings alone."""
        job, inputs = self._job(
            denoise, None, shapes, seed, indices, cond, given, given_weight, loss_scale
        )
        begin_program, proceed_program = self._programs
        begin = begin_program.lower(job, inputs).compile()
        carry = jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            begin.out_info,
            begin.output_shardings,
        )
        first, chunk = np.int32(0), chunk_of(len(self.levels))
        proceed = proceed_program.lower(job, inputs, carry, first, chunk).compile()
        return CompiledSampler(self, job, inputs.root, begin, proceed)

    def _columns(self, denoise: Any) -> dict[str, np.ndarray]:
        if not isinstance(denoise, PlannedDenoiser):
            return {}
        return denoise.plan_columns(self.levels.model_times, self.num_substeps)

    def _advance(self, denoise: Any, carry: Carry, row: Rows, noise: NoiseFn, cond: Cond) -> Carry:
        states, tables = carry.states, row.tables
        batch = next(iter(carry.x.values())).shape[0]
        level = jnp.full((batch,), row.t)

        def substep(j: Any, inner: Carry) -> Carry:
            x, _, planned = inner
            if self.num_substeps > 1:
                z = {m: noise(row.step, 2 * j, m, x[m].shape) for m in x}
                x = {m: jnp.where(j > 0, renoise(x[m], tables[m], z[m]), x[m]) for m in x}
            if row.plan:
                now = {name: column[j] for name, column in row.plan.items()}
                eps, planned = denoise.planned(x, level, cond, now, planned)
            else:
                eps = denoise(x, level, cond)
            z = {m: noise(row.step, 2 * j + 1, m, x[m].shape) for m in x}
            # Every substep takes the state of the step before, not of its sibling.
            both = {m: self.steppers[m].step(x[m], eps[m], tables[m], states[m], z[m]) for m in x}
            x, new = ({m: pair[i] for m, pair in both.items()} for i in (0, 1))
            return Carry(x, new, planned)

        if self.num_substeps == 1:
            return substep(0, carry)
        # A loop, not copies: the denoiser is compiled once whatever the number of substeps.
        return jax.lax.fori_loop(0, self.num_substeps, substep, carry)

    def _job(
        self,
        denoise: Any,
        noise: NoiseFn | None,
        shapes: Shapes | None,
        seed: Any,
        indices: Any,
        cond: Cond,
        given: AV | None,
        weight: float,
        loss_scale: float,
        x_T: Mapping[str, ArrayLike] | None = None,
        keep_every: int | None = None,
    ) -> tuple["_Job", "_Inputs"]:
        """Static part of a run, for which it is compiled, and its arrays."""
        if (x_T is None or noise is None) and indices is None:
            raise ValueError("indices [b] say which samples of the seed to draw: give range(8).")
        indices = None if indices is None else _whole_numbers(indices)
        if x_T is not None:
            start = {m: jnp.asarray(x) for m, x in x_T.items()}
            full = {m: x.shape for m, x in start.items()}
        else:
            start = None
            full = {m: (*indices.shape, *shape) for m, shape in (shapes or {}).items()}
        if not full or not set(full) <= set(self.steppers):
            raise ValueError(
                f"there are shapes of {sorted(full)}, but steppers of {sorted(self.steppers)}: "
                "give {modality: shape of a sample}."
            )
        if given is not None:
            check_given(given, full, self.steppers, self.num_substeps, weight)
        n = len(self.levels)
        if keep_every is not None and not 1 <= keep_every <= n:
            raise ValueError(
                f"keep_every must be in 1..{n} (the number of steps), got {keep_every}."
            )
        arrays, structure = split((denoise, noise))
        sizes = tuple((m, tuple(shape[1:])) for m, shape in full.items())
        job = _Job(structure, sizes, weight, loss_scale, keep_every)
        return job, _Inputs(arrays, _root(seed), indices, cond, given, start)

    @functools.cached_property
    def _programs(self) -> tuple[Any, Any]:
        return jax.jit(self._begin, static_argnums=0), jax.jit(self._proceed, static_argnums=(0, 4))

    def _begin(self, job: "_Job", inputs: "_Inputs") -> tuple[Carry, AV]:
        denoise, _, start, _ = job.parts(inputs)
        kept = {}
        if job.keep_every is not None:
            slots = len(self.levels) // job.keep_every
            kept = {m: jnp.zeros((slots, *v.shape), v.dtype) for m, v in start.items()}
        return self.init(denoise, start), kept

    def _proceed(
        self, job: "_Job", inputs: "_Inputs", carry: tuple[Carry, AV], first: Any, length: int
    ) -> tuple[Carry, AV]:
        """The carry after `length` steps from number `first` on, which may be traced."""
        denoise, noise, _, given = job.parts(inputs)

        def body(carry: tuple[Carry, AV], row: Rows) -> tuple[tuple[Carry, AV], None]:
            inner, kept = carry
            inner = self.step(denoise, inner, row, noise, inputs.cond, given)
            if job.keep_every is not None:
                # The last write of slot i is that of step (i + 1) k - 1.
                slot = row.step // job.keep_every
                kept = {m: kept[m].at[slot].set(inner.x[m], mode="drop") for m in kept}
            return (inner, kept), None

        rows = self.rows(denoise, carry[0].x)
        some = jax.tree.map(lambda v: jax.lax.dynamic_slice_in_dim(v, first, length), rows)
        return jax.lax.scan(body, carry, some)[0]


@dataclasses.dataclass(frozen=True, eq=False)
class CompiledSampler:
    """Sampler compiled ahead of time by `Sampler.compile`, for one seed."""

    sampler: Sampler
    job: "_Job"
    root: Any
    begin: Any
    proceed: Any

    @property
    def num_steps(self) -> int:
        """Steps of a call, all of which `on_steps` is told of."""
        return len(self.sampler.levels)

    def __call__(
        self,
        denoise: DenoiseFn,
        indices: ArrayLike,
        cond: Cond = None,
        given: AV | None = None,
        *,
        on_steps: OnSteps | None = None,
    ) -> AV:
        """Samples {modality: [b ...]} as of `Sampler.run`.

        Raises:
          ValueError: a denoiser of another structure than the one that this was compiled for.
        """
        arrays, structure = split((denoise, None))
        if structure != self.job.structure:
            raise ValueError(
                "this sampler was compiled for another denoiser: call it with the same functions, "
                "static scales and settings, whose arrays alone may differ, or compile it anew."
            )
        inputs = _Inputs(arrays, self.root, _whole_numbers(indices), cond, given, None)
        carry, _ = _drive(
            lambda: self.begin(inputs),
            lambda carry, first: self.proceed(inputs, carry, first),
            self.num_steps,
            on_steps,
        )
        return carry.x


class _Inputs(NamedTuple):
    """Arrays that a sampling's programs are called with."""

    arrays: tuple[Any, ...]  # of the denoiser and of the noise
    root: Any  # data of the seed's key
    indices: Any
    cond: Cond
    given: AV | None
    x_T: AV | None


@dataclasses.dataclass(frozen=True)
class _Job:
    """Static part of a sampling, for which its programs are compiled."""

    structure: Structure
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    weight: float
    loss_scale: float
    keep_every: int | None

    def parts(self, inputs: _Inputs) -> tuple[Any, NoiseFn, AV, Given | None]:
        """Denoiser, noise, start and given signals, inside of a program."""
        denoise, noise = self.structure.build(inputs.arrays)
        start = inputs.x_T
        if start is None or noise is None:
            keys = sample_keys(jax.random.wrap_key_data(inputs.root), inputs.indices)
            start = initial(keys, dict(self.shapes)) if start is None else start
            noise = noise or keyed(keys)
        given = None
        if inputs.given is not None:
            fixed = {m: start[m] for m in inputs.given}
            given = Given(
                clean=inputs.given, noise=fixed, weight=self.weight, loss_scale=self.loss_scale
            )
        return denoise, noise, start, given


def chunk_of(num_steps: int) -> int:
    """Steps a call: the largest divisor of their number that is at most a tenth of it, or 1."""
    return max(d for d in range(1, max(1, num_steps // 10) + 1) if num_steps % d == 0)


def step_tables(
    stepper: Stepper, schedule: Schedule, levels: Levels, num_substeps: int = 1
) -> dict[str, np.ndarray]:
    """A stepper's coefficients, float64 [n], with those of `renoise` if there are substeps."""
    if num_substeps > 1 and stepper.staged:
        raise ValueError(
            f"num_substeps is {num_substeps}, but {stepper} takes a step in several rows, none of "
            "which can be repeated by itself: use one substep, or its multistep method."
        )
    tables = stepper.tables(schedule, levels)
    if num_substeps > 1:
        ratio = np.square(tables["alpha"]) / tables["abar_next"]
        tables |= {"renoise_keep": np.sqrt(ratio), "renoise_add": np.sqrt(1 - ratio)}
    return tables


def renoise(x: Array, row: Row, noise: Array) -> Array:
    """Back from the step's end to its start: x_t = sqrt(abar_t / abar_next) x + sqrt(1 - .) z."""
    return row["renoise_keep"] * x + row["renoise_add"] * noise


def _drive(
    begin: Callable[[], Any],
    proceed: Callable[[Any, Any], Any],
    num_steps: int,
    on_steps: OnSteps | None,
) -> Any:
    """The carry after all steps, in chunks, of which the host waits for the one before the last.

    Chunks are the same program with and without `on_steps`, so that results are too, bit for bit.
    (A callback out of one long scan would keep JAX from storing the program in its cache.)
    """
    carry, chunk = begin(), chunk_of(num_steps)
    homes = jax.tree.map(lambda x: x.sharding, carry)
    for first in range(0, num_steps, chunk):
        before, carry = carry, proceed(carry, np.int32(first))
        # A chunk must end as it began, wherever XLA left it: the next one is the same program.
        carry = jax.tree.map(_placed, carry, homes)
        if on_steps and first:
            jax.block_until_ready(before)
            on_steps(chunk)
    if on_steps:
        jax.block_until_ready(carry)
        on_steps(chunk)
    return carry


def _placed(x: Array, home: Any) -> Array:
    return x if x.sharding.is_equivalent_to(home, x.ndim) else jax.device_put(x, home)


def _in_trace(inputs: Any) -> bool:
    """True if the caller is being traced, with these arrays or with others."""
    leaves = [jnp.zeros(()), *jax.tree.leaves(inputs)]
    return any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)


def _root(seed: Any) -> Any:
    """Data of a seed's key, on the host: a value of the programs, never a constant of theirs."""
    data = jax.random.key_data(jax.random.key(seed))
    return data if isinstance(data, jax.core.Tracer) else np.asarray(data)


def _whole_numbers(indices: Any) -> Any:
    """Indices [b], int32 unless they are JAX's already."""
    array = indices if isinstance(indices, jax.Array) else np.asarray(indices)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"indices are {array.dtype} {array.shape}, but must be whole numbers [b]: which "
            "samples of the seed to draw."
        )
    return array if isinstance(array, jax.Array) else array.astype(np.int32)
