# SPDX-License-Identifier: Apache-2.0
"""What a config costs by the compiler's own account, without running it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmdisco_jax import build
from mmdisco_jax.build import Config
from mmdisco_jax.training.state import init_state, make_step


def estimate(config: Config) -> dict[str, dict[str, float]]:
    """{"training_step", "denoiser_call"} of `bench.batch_size` pairs, for this machine's device.

    Each holds GFLOP per pair (what XLA counts in the program it would run, so rematerialisation
    counts), and GB: of the arguments, of all temporaries, and of both with the results, which is
    the peak. Parameters are described, never made: any size can be estimated on any machine.
    """
    return {
        "training_step": account(*training_step(config), config.bench.batch_size),
        "denoiser_call": account(*_denoiser(config), config.bench.batch_size),
    }


def training_step(config: Config) -> tuple[Any, tuple]:
    """A jitted step of `config.train`, and descriptions of its arguments."""
    loss_fn, init, frozen = build.training_task(config)
    optimizer = build.optimizer(config)
    step = make_step(
        loss_fn,
        optimizer,
        ema_decay=config.train.ema_decay,
        num_microbatches=config.train.num_microbatches,
    )
    params = jax.eval_shape(init, jax.random.key(0))
    state = jax.eval_shape(lambda p: init_state(p, optimizer, build.loss_memory(config)), params)
    return jax.jit(step, donate_argnums=0), (state, frozen, raw_batch(config), jax.random.key(0))


def raw_batch(config: Config) -> dict[str, jax.ShapeDtypeStruct]:
    """The clips of a batch of `bench.batch_size`, as the input pipeline gives them."""
    dtypes, size = {"audio": np.int16, "video": np.uint8}, config.bench.batch_size
    shapes = build.clip_shapes(config)
    return {m: jax.ShapeDtypeStruct((size, *shape), dtypes[m]) for m, shape in shapes.items()}


def _denoiser(config: Config) -> tuple[Any, tuple]:
    """One call of the base models, and descriptions of its arguments."""
    made = {m: build.base_model(config, m) for m in config.bases}
    graphs = {m: graph for m, (graph, _) in made.items()}
    params = {m: jax.eval_shape(init, jax.random.key(0)) for m, (_, init) in made.items()}
    size = config.bench.batch_size

    def call(params: Any, x: Any, t: Any) -> Any:
        return build.denoise_fn(build.base_models(config, graphs, params))(x, t, None)

    x = {
        m: jax.ShapeDtypeStruct((size, *s), jnp.float32)
        for m, s in build.sample_shapes(config).items()
    }
    return jax.jit(call), (params, x, jax.ShapeDtypeStruct((size,), jnp.int32))


def account(function: Any, arguments: tuple, size: int) -> dict[str, float]:
    """What XLA says of a jitted function of these arguments, compiled and not run."""
    compiled = function.lower(*arguments).compile()
    memory = compiled.memory_analysis()
    arguments_gb, temporary_gb = memory.argument_size_in_bytes, memory.temp_size_in_bytes
    results_gb = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return {
        "batch_size": size,
        "gflop_per_pair": compiled.cost_analysis()["flops"] / size / 1e9,
        "arguments_gb": arguments_gb / 1e9,
        "temporaries_gb": temporary_gb / 1e9,
        "peak_gb": (arguments_gb + temporary_gb + results_gb) / 1e9,
    }
