# SPDX-License-Identifier: Apache-2.0
"""`bench`: what steps cost, as ratios of compiled steps timed side by side or by XLA's account."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmdisco_jax import build
from mmdisco_jax.build import Config
from mmdisco_jax.commands.estimate import estimate, training_step
from mmdisco_jax.commands.text_cost import text_step
from mmdisco_jax.discriminator.official import PRESETS
from mmdisco_jax.discriminator.official_pair import OfficialPair
from mmdisco_jax.guidance.joint import joint, residual
from mmdisco_jax.io import write_bytes
from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.process.schedules import linear
from mmdisco_jax.training.state import init_state


def run(config: Config, workdir: Path) -> None:
    """Prints and writes workdir/bench.json, with the parts that `config.bench.parts` names.

    Seconds on a CPU are no claim; the ratios are.
    """
    unknown = set(config.bench.parts) - PARTS.keys()
    if unknown:
        raise ValueError(
            f"unknown bench.parts {sorted(unknown)}: choose some of {', '.join(PARTS)}."
        )
    report: dict[str, Any] = {"device": jax.devices()[0].device_kind}
    for part in config.bench.parts:
        report[part] = PARTS[part](config)
    write_bytes(workdir / "bench.json", json.dumps(report, indent=1).encode())
    print(json.dumps(report, indent=2))


def _guidance(config: Config) -> dict[str, float]:
    """One denoiser call of the config's models, guided and not, with random weights."""
    graphs, params = {}, {}
    for m in config.bases:
        graphs[m], init = build.base_model(config, m)
        params[m] = init(jax.random.key(0))
    graph, init = build.discriminator(config)
    params = (params, init(jax.random.key(1)))
    noise = build.schedules(config)
    batch = config.bench.batch_size
    x = {m: jnp.ones((batch, *shape)) for m, shape in build.sample_shapes(config).items()}
    scales = dict.fromkeys(x, 1.0)
    t = jnp.full((batch,), 300, jnp.int32)

    def plain(params: Any, x: Any) -> Any:
        return build.denoise_fn(build.base_models(config, graphs, params[0]))(x, t, None)

    def guided(params: Any, x: Any) -> Any:
        models = build.base_models(config, graphs, params[0])
        h = build.log_ratio_fn(config, graph, params[1], models)
        return joint(build.denoise_fn(models), h, noise, scales)(x, t, None)

    return _ratio({"unguided": plain, "guided": guided}, params, x, config.bench.repeats)


def _official(config: Config) -> dict[str, float]:
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
    return _ratio(functions, params, x, config.bench.repeats)


def _training(config: Config) -> dict[str, float]:
    """Median seconds of a compiled training step on noise, `bench.batch_size` pairs."""
    function, (state, frozen, batch, key) = training_step(config)
    _, init, _ = build.training_task(config)
    memory = build.loss_memory(config)
    start_state = jax.jit(lambda p: init_state(p, build.optimizer(config), memory))
    state = start_state(init(jax.random.key(0)))
    batch = {m: jnp.ones(x.shape, x.dtype) for m, x in batch.items()}
    compiled = function.lower(state, frozen, batch, key).compile()
    seconds = []
    for _ in range(config.bench.repeats + 1):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(compiled(state, frozen, batch, key))
        seconds.append(time.perf_counter() - start)
    return {
        "batch_size": config.bench.batch_size,
        "seconds_per_step": float(np.median(seconds[1:])),
    }


def _sampling(config: Config) -> dict[str, dict[str, float]]:
    """Seconds per clip of each variant, `bench.batch_size` at a time, with random weights."""
    made = {m: build.base_model(config, m)[1](jax.random.key(0)) for m in config.bases}
    disc = build.discriminator(config)[1](jax.random.key(1))
    report = {}
    for variant in build.variant_names(config):
        params = (made, disc if build.is_guided(config, variant) else None)
        indices = jnp.arange(config.bench.batch_size)
        run_sampler = build.sampler(config, variant).compile(*params, indices)
        jax.block_until_ready(run_sampler(*params, indices))
        start = time.perf_counter()
        jax.block_until_ready(run_sampler(*params, indices))
        seconds = (time.perf_counter() - start) / config.bench.batch_size
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
