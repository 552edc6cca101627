# SPDX-License-Identifier: Apache-2.0
"""`bench`: cost of steps, as ratios of compiled steps timed side by side, or estimated by XLA."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmdisco_jax.discriminator.official import PRESETS
from mmdisco_jax.discriminator.official_pair import OfficialPair
from mmdisco_jax.guidance.joint import joint, residual
from mmdisco_jax.io import write_bytes
from mmdisco_jax.losses import training_loss
from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.pair import BaseDenoiser
from mmdisco_jax.process.schedules import linear
from mmdisco_jax.system import System
from mmdisco_jax.tasks.cost import estimate, text_step, training_step
from mmdisco_jax.tasks.train import optimizer
from mmdisco_jax.training.state import init_state


def run(system: System, workdir: Path) -> None:
    """Prints and writes workdir/bench.json, with the parts that `bench.parts` names.

    CPU timings are indicative; compare the ratios.
    """
    parts = system.experiment.bench.parts
    unknown = set(parts) - PARTS.keys()
    if unknown:
        raise ValueError(
            f"unknown bench.parts {sorted(unknown)}: choose some of {', '.join(PARTS)}."
        )
    report: dict[str, Any] = {"device": jax.devices()[0].device_kind}
    for part in parts:
        report[part] = PARTS[part](system)
    write_bytes(workdir / "bench.json", json.dumps(report, indent=1).encode())
    print(json.dumps(report, indent=2))


def _random_bases(system: System) -> dict[str, Any]:
    return {name: init(jax.random.key(0)) for name, (_, init) in system.definitions.items()}


def _guidance(system: System) -> dict[str, float]:
    """One denoiser call of the experiment's models, guided and not, with random weights."""
    settings = system.experiment.bench
    params = (_random_bases(system), system.discriminator[1](jax.random.key(1)))
    x = {m: jnp.ones((settings.batch_size, *s)) for m, s in system.shapes.items()}
    scales = dict.fromkeys(x, 1.0)
    t = jnp.full((settings.batch_size,), 300, jnp.int32)

    def plain(params: Any, x: Any) -> Any:
        return BaseDenoiser(system.models, params[0])(x, t)

    def guided(params: Any, x: Any) -> Any:
        h = system.log_ratio_of(params[1], params[0])
        base = BaseDenoiser(system.models, params[0])
        return joint(base, h, system.schedules, scales)(x, t, None)

    return _ratio({"unguided": plain, "guided": guided}, params, x, settings.repeats)


def _official(system: System) -> dict[str, float]:
    """The 33 M discriminator: its forward pass, and forward with input gradient, in float32."""
    model = OfficialPair(PRESETS["audioldm_animatediff"], rngs=param_keys(0))
    graph, params = nnx.split(model)
    x = {"video": jnp.ones((1, 16, 32, 32, 4)), "audio": jnp.ones((1, 50, 16, 8))}
    cond = {"video": jnp.ones((1, 768)), "audio": jnp.ones((1, 512))}
    t = jnp.full((1,), 300, jnp.int32)
    schedules = {"video": linear(), "audio": linear()}

    def forward(params: Any, x: Any) -> Any:
        return nnx.merge(graph, params)(x, t, cond)

    def gradient(params: Any, x: Any) -> Any:
        return residual(nnx.merge(graph, params), schedules)(x, t, cond)

    functions = {"forward": forward, "forward_and_input_gradient": gradient}
    return _ratio(functions, params, x, system.experiment.bench.repeats)


def _training(system: System) -> dict[str, float]:
    """Median seconds of a compiled training step on noise, `bench.batch_size` pairs."""
    settings = system.experiment.bench
    loss = training_loss(system, system.experiment.train.target)
    function, (_, frozen, batch, key) = training_step(system, loss)
    start_state = jax.jit(lambda p: init_state(p, optimizer(system), loss.history))
    state = start_state(loss.init(jax.random.key(0)))
    batch = {m: jnp.ones(x.shape, x.dtype) for m, x in batch.items()}
    compiled = function.lower(state, frozen, batch, key).compile()
    seconds = []
    for _ in range(settings.repeats + 1):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(compiled(state, frozen, batch, key))
        seconds.append(time.perf_counter() - start)
    return {
        "batch_size": settings.batch_size,
        "seconds_per_step": float(np.median(seconds[1:])),
    }


def _sampling(system: System) -> dict[str, dict[str, float]]:
    """Seconds per clip of each variant, `bench.batch_size` at a time, with random weights."""
    experiment = system.experiment
    bases, head = _random_bases(system), None
    size, report = experiment.bench.batch_size, {}
    for variant in experiment.variant_names:
        settings = experiment.variant(variant)
        if settings.is_guided:
            head = system.discriminator[1](jax.random.key(1))
        denoise = system.guided(settings, bases, head)
        indices = np.arange(size)
        run_sampler = system.sampler(variant).compile(denoise, system.shapes, indices=indices)
        jax.block_until_ready(run_sampler(denoise, indices))
        start = time.perf_counter()
        jax.block_until_ready(run_sampler(denoise, indices))
        seconds = (time.perf_counter() - start) / size
        report[variant] = {"steps": run_sampler.num_steps, "seconds_per_clip": seconds}
    return report


def _ratio(
    functions: dict[str, Callable[[Any, Any], Any]], params: Any, x: Any, repeats: int
) -> dict[str, float]:
    """Median seconds of each compiled function, taken in turns, and the last over the first."""
    compiled = {name: jax.jit(f).lower(params, x).compile() for name, f in functions.items()}
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for f in compiled.values():
        jax.block_until_ready(f(params, x))
    for _ in range(repeats):
        for name, f in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(f(params, x))
            seconds[name].append(time.perf_counter() - start)
    medians = {f"{name}_seconds": float(np.median(s)) for name, s in seconds.items()}
    values = list(medians.values())
    return medians | {"ratio": values[-1] / values[0]}


PARTS = {
    "guidance": _guidance,
    "official": _official,
    "training": _training,
    "sampling": _sampling,
    "estimate": estimate,
    "text_step": text_step,
}
