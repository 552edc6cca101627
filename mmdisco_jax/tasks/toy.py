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

from mmdisco_jax import build
from mmdisco_jax.build import Config
from mmdisco_jax.guidance.joint import joint
from mmdisco_jax.io import write_bytes
from mmdisco_jax.metrics import bootstrap, kernel
from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.samplers import SAMPLERS
from mmdisco_jax.samplers.levels import levels
from mmdisco_jax.samplers.sampler import Sampler
from mmdisco_jax.types import AV, LogRatioFn
from mmdisco_jax.worlds.toy.discriminator import ToyDiscriminator, ToyDiscriminatorSpec
from mmdisco_jax.worlds.toy.figure import write_toy_figure
from mmdisco_jax.worlds.toy.mixtures import ORDER, WORLDS, exact_bases, exact_log_ratio
from mmdisco_jax.worlds.toy.training import Problem, loss, trainer

INDEPENDENT, EXACT, DATA = "independent", "exact log-ratio", "data"


def run(config: Config, workdir: Path) -> dict:
    """Writes workdir/toy.png and toy.json, and returns what the latter holds.

    {"world, base": {column: {"value", "low", "high"}}}: energy distances to the true joint with
    bootstrap intervals over the generated pairs. Column "data" is a second set of true pairs, the
    floor; "exact log-ratio" is the sampler with the perfect discriminator.
    """
    table = problems(config)
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *table.values())
    columns = _columns(config, stacked)
    reference = _points(_true_pairs(stacked, config.seed + 1, config.num_reference))
    results = {}
    for i, name in enumerate(table):
        results[name] = {
            column: energy_distance(
                reference[i], points[i], replicates=config.num_replicates, seed=config.seed
            )
            for column, points in columns.items()
        }
    workdir = Path(workdir)
    write_bytes(workdir / "toy.json", json.dumps(results, indent=2).encode())
    rows = {name: {c: points[i] for c, points in columns.items()} for i, name in enumerate(table)}
    values = {name: {c: r["value"] for c, r in row.items()} for name, row in results.items()}
    write_toy_figure(workdir / "toy.png", rows, values)
    return results


def problems(config: Config) -> dict[str, Problem]:
    """Every world with every base, by name."""
    out = {}
    for name in config.worlds:
        if name not in WORLDS:
            raise ValueError(f"unknown toy world {name!r}: choose from {', '.join(WORLDS)}.")
        world = WORLDS[name]()
        for kind, change in config.bases.items():
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


def _columns(config: Config, stacked: Problem) -> dict[str, np.ndarray]:
    """column -> pairs [problem, n, 2]; problems are stacked along the first axis."""
    schedules = build.schedules(config)
    spec = ToyDiscriminatorSpec(**config.discriminator)
    graphdef, _ = nnx.split(nnx.eval_shape(lambda: ToyDiscriminator(spec, rngs=param_keys(0))))

    def log_ratio(params) -> LogRatioFn:
        return lambda x, t, cond: nnx.merge(graphdef, params)(x, t, cond)

    def exact(problem: Problem) -> LogRatioFn:
        return exact_log_ratio(problem.world, problem.base, schedules)

    draw = _sampler(config, schedules)
    columns = {
        DATA: _true_pairs(stacked, config.seed, config.num_samples),
        INDEPENDENT: jax.jit(jax.vmap(lambda problem: draw(problem, None)))(stacked),
    }
    keys = jax.random.split(jax.random.key(config.seed), len(stacked.world.means))
    guided = jax.jit(jax.vmap(lambda problem, params: draw(problem, log_ratio(params))))
    # A ConfigDict is sorted by name: single losses first, then their sums.
    losses = sorted(config.losses.items(), key=lambda item: sum(w > 0 for w in item[1].values()))
    for name, weights in losses:
        train = trainer(
            loss(weights, log_ratio, schedules, config.train.batch_size),
            lambda key: nnx.split(ToyDiscriminator(spec, rngs=param_keys(key)))[1],
            build.optimizer(config),
            num_steps=config.train.num_steps,
            ema_decay=config.train.ema_decay,
        )
        columns[name] = guided(stacked, jax.jit(jax.vmap(train))(stacked, keys))
    columns[EXACT] = jax.jit(jax.vmap(lambda problem: draw(problem, exact(problem))))(stacked)
    return {name: _points(pairs) for name, pairs in columns.items()}


def _sampler(
    config: Config, schedules: dict[str, Schedule]
) -> Callable[[Problem, LogRatioFn | None], AV]:
    """(problem, log-ratio, or None for independent sampling) -> pairs."""
    stepper = SAMPLERS.get(config.sampler.name)(**config.sampler.options)
    path = levels(schedules, config.sampler.num_steps, config.sampler.spacing)
    sampler = Sampler({m: stepper for m in ORDER}, schedules, path)

    def draw(problem: Problem, log_ratio: LogRatioFn | None) -> AV:
        denoise = exact_bases(problem.base, schedules)
        if log_ratio is not None:
            denoise = joint(denoise, log_ratio, schedules, config.strength.to_dict())
        shapes, indices = {m: (1,) for m in ORDER}, range(config.num_samples)
        return sampler.run(denoise, shapes, seed=config.seed, indices=indices)

    return draw


def _true_pairs(stacked: Problem, seed: int, count: int) -> AV:
    key = jax.random.fold_in(jax.random.key(seed), 0)
    return jax.vmap(lambda world: world.sample(key, count))(stacked.world)


def _points(pairs: AV) -> np.ndarray:
    return np.concatenate([np.asarray(pairs[m], np.float64) for m in ORDER], axis=-1)
