# SPDX-License-Identifier: Apache-2.0
"""`toy`: every loss on every toy world, trained side by side, sampled, measured and drawn."""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from scipy.spatial.distance import cdist

from mmdisco_jax.base_models.api import as_schedule, made
from mmdisco_jax.experiment import Experiment
from mmdisco_jax.guidance.joint import joint
from mmdisco_jax.io import write_bytes
from mmdisco_jax.metrics import bootstrap, kernel
from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.samplers import SAMPLERS
from mmdisco_jax.samplers.levels import levels
from mmdisco_jax.samplers.sampler import Sampler
from mmdisco_jax.sections import Toy
from mmdisco_jax.system import System
from mmdisco_jax.tasks.train import optimizer
from mmdisco_jax.types import AV, LogRatioFn
from mmdisco_jax.worlds.toy.discriminator import ToyDiscriminator, ToyDiscriminatorSpec
from mmdisco_jax.worlds.toy.figure import write_toy_figure
from mmdisco_jax.worlds.toy.mixtures import ORDER, WORLDS, exact_bases, exact_log_ratio
from mmdisco_jax.worlds.toy.training import Problem, loss, trainer

INDEPENDENT, EXACT, DATA = "independent", "exact log-ratio", "data"


def run(system: System, workdir: Path) -> dict:
    """Writes workdir/toy.png and toy.json, and returns what the latter holds.

    {"world, base": {column: {"value", "low", "high"}}}: energy distances to the true joint with
    bootstrap intervals over the generated pairs. Column "data" is a second set of true pairs, the
    floor; "exact log-ratio" is the sampler with the perfect discriminator.
    """
    seed, toy = system.experiment.seed, _toy(system.experiment)
    table = problems(toy)
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *table.values())
    columns = _columns(system, toy, stacked)
    reference = _points(_true_pairs(stacked, seed + 1, toy.num_reference))
    results = {}
    for i, name in enumerate(table):
        results[name] = {
            column: energy_distance(
                reference[i], points[i], replicates=toy.num_replicates, seed=seed
            )
            for column, points in columns.items()
        }
    workdir = Path(workdir)
    write_bytes(workdir / "toy.json", json.dumps(results, indent=2).encode())
    rows = {name: {c: points[i] for c, points in columns.items()} for i, name in enumerate(table)}
    values = {name: {c: r["value"] for c, r in row.items()} for name, row in results.items()}
    write_toy_figure(workdir / "toy.png", rows, values)
    return results


def _toy(experiment: Experiment) -> Toy:
    if experiment.toy is None:
        raise ValueError("config.toy is empty: use a config that sets it, such as configs/toy.py.")
    return experiment.toy


def problems(toy: Toy) -> dict[str, Problem]:
    """Every world with every base, by name."""
    out = {}
    for name in toy.worlds:
        if name not in WORLDS:
            raise ValueError(f"unknown toy world {name!r}: choose from {', '.join(WORLDS)}.")
        world = WORLDS[name]()
        for kind, change in toy.bases.items():
            out[f"{name}, {kind}"] = Problem(world, world.disturbed(**change))
    return out


def energy_distance(
    reference: np.ndarray, generated: np.ndarray, *, replicates: int, seed: int
) -> dict[str, float]:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| (Szekely and Rizzo 2013), unbiased, with an interval."""
    _, weighted = kernel.mmd_squared(reference, generated, lambda a, b: -cdist(a, b))
    value, low, high = bootstrap.weighted(
        weighted, len(generated), replicates=replicates, seed=seed
    )
    return {"value": value, "low": low, "high": high}


def _columns(system: System, toy: Toy, stacked: Problem) -> dict[str, np.ndarray]:
    """column -> pairs [problem, n, 2]; problems are stacked along the first axis."""
    seed, train_settings = system.experiment.seed, system.experiment.train
    schedules = {m: as_schedule(toy.schedule) for m in ORDER}
    spec = ToyDiscriminatorSpec(**toy.discriminator)
    graphdef, _ = nnx.split(nnx.eval_shape(lambda: ToyDiscriminator(spec, rngs=param_keys(0))))

    def log_ratio(params) -> LogRatioFn:
        return lambda x, t, cond: nnx.merge(graphdef, params)(x, t, cond)

    def exact(problem: Problem) -> LogRatioFn:
        return exact_log_ratio(problem.world, problem.base, schedules)

    draw = _sampler(toy, seed, schedules)
    columns = {
        DATA: _true_pairs(stacked, seed, toy.num_samples),
        INDEPENDENT: jax.jit(jax.vmap(lambda problem: draw(problem, None)))(stacked),
    }
    keys = jax.random.split(jax.random.key(seed), len(stacked.world.means))
    guided = jax.jit(jax.vmap(lambda problem, params: draw(problem, log_ratio(params))))
    # Single losses first, then their sums.
    losses = sorted(
        sorted(toy.losses.items()), key=lambda item: sum(w > 0 for w in item[1].values())
    )
    for name, weights in losses:
        train = trainer(
            loss(weights, log_ratio, schedules, train_settings.batch_size),
            lambda key: nnx.split(ToyDiscriminator(spec, rngs=param_keys(key)))[1],
            optimizer(system),
            num_steps=train_settings.num_steps,
            ema_decay=train_settings.ema_decay,
        )
        columns[name] = guided(stacked, jax.jit(jax.vmap(train))(stacked, keys))
    columns[EXACT] = jax.jit(jax.vmap(lambda problem: draw(problem, exact(problem))))(stacked)
    return {name: _points(pairs) for name, pairs in columns.items()}


def _sampler(
    toy: Toy, seed: int, schedules: dict[str, Schedule]
) -> Callable[[Problem, LogRatioFn | None], AV]:
    """(problem, log-ratio, or None for independent sampling) -> pairs."""
    stepper = made(SAMPLERS, toy.sampler)
    path = levels(schedules, toy.num_steps, toy.spacing)
    sampler = Sampler({m: stepper for m in ORDER}, schedules, path)

    def draw(problem: Problem, log_ratio: LogRatioFn | None) -> AV:
        denoise = exact_bases(problem.base, schedules)
        if log_ratio is not None:
            denoise = joint(denoise, log_ratio, schedules, dict(toy.scales))
        shapes, indices = {m: (1,) for m in ORDER}, range(toy.num_samples)
        return sampler.run(denoise, shapes, seed=seed, indices=indices)

    return draw


def _true_pairs(stacked: Problem, seed: int, count: int) -> AV:
    key = jax.random.fold_in(jax.random.key(seed), 0)
    return jax.vmap(lambda world: world.sample(key, count))(stacked.world)


def _points(pairs: AV) -> np.ndarray:
    return np.concatenate([np.asarray(pairs[m], np.float64) for m in ORDER], axis=-1)
