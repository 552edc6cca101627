# SPDX-License-Identifier: Apache-2.0
"""`bench`: what joint guidance costs, as ratios of compiled steps timed side by side."""

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
from mmdisco_jax.discriminator.official import PRESETS
from mmdisco_jax.discriminator.official_pair import OfficialPair
from mmdisco_jax.export.atomic import write_bytes
from mmdisco_jax.guidance.joint import joint, residual
from mmdisco_jax.nn.keys import param_keys
from mmdisco_jax.process.schedules import linear


def run(config: Config, workdir: Path) -> None:
    """Prints and writes workdir/bench.json. Seconds on a CPU are no claim; the ratios are."""
    report = {
        "device": jax.devices()[0].device_kind,
        "default": _default(config),
        "audioldm_animatediff": _full_size(config),
    }
    write_bytes(workdir / "bench.json", json.dumps(report, indent=1).encode())
    print(json.dumps(report, indent=2))


def _default(config: Config) -> dict[str, float]:
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


def _full_size(config: Config) -> dict[str, float]:
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
