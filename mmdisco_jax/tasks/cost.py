# SPDX-License-Identifier: Apache-2.0
"""Cost estimates from XLA: operations and memory of steps that are compiled and not run."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmdisco_jax.guidance.classifier_free import Field, classifier_free
from mmdisco_jax.guidance.joint import joint
from mmdisco_jax.losses import TrainingLoss, training_loss
from mmdisco_jax.pair import BaseDenoiser
from mmdisco_jax.system import System
from mmdisco_jax.tasks.train import optimizer
from mmdisco_jax.training.state import init_state, make_step
from mmdisco_jax.types import AV, Array, Cond


def estimate(system: System) -> dict[str, dict[str, float]]:
    """{"training_step", "denoiser_call"} of `bench.batch_size` pairs, for this machine's device.

    Each holds GFLOP per pair (what XLA counts in the program it would run, so rematerialisation
    counts), and GB: of the arguments, of all temporaries, and of both with the results, which is
    the peak. Parameters are described, never made: any size can be estimated on any machine.
    """
    size = system.experiment.bench.batch_size
    return {
        "training_step": account(*training_step(system), size),
        "denoiser_call": account(*_denoiser(system), size),
    }


def training_step(system: System, loss: TrainingLoss | None = None) -> tuple[Any, tuple]:
    """A jitted step of `config.train`, and descriptions of its arguments."""
    train = system.experiment.train
    loss = loss or training_loss(system, train.target)
    adam = optimizer(system)
    step = make_step(
        loss.loss_fn, adam, ema_decay=train.ema_decay, num_microbatches=train.num_microbatches
    )
    params = jax.eval_shape(loss.init, jax.random.key(0))
    state = jax.eval_shape(lambda p: init_state(p, adam, loss.history), params)
    arguments = (state, loss.frozen, raw_batch(system), jax.random.key(0))
    return jax.jit(step, donate_argnums=0), arguments


def raw_batch(system: System) -> dict[str, jax.ShapeDtypeStruct]:
    """Description of the clips of a batch of `bench.batch_size`, as the input pipeline makes it."""
    clip, size = system.experiment.clip, system.experiment.bench.batch_size
    shapes = {
        "audio": ((size, clip.num_samples), np.int16),
        "video": ((size, clip.num_frames, clip.height, clip.width, 3), np.uint8),
    }
    return {m: jax.ShapeDtypeStruct(*shapes[m]) for m in system.modalities}


def _denoiser(system: System) -> tuple[Any, tuple]:
    """One call of the base models, and descriptions of its arguments."""
    size = system.experiment.bench.batch_size

    def call(params: Any, x: Any, t: Any) -> Any:
        return BaseDenoiser(system.models, params)(x, t)

    arguments = (base_shapes(system), latents(system), jax.ShapeDtypeStruct((size,), jnp.int32))
    return jax.jit(call), arguments


def base_shapes(system: System) -> dict[str, Any]:
    """Descriptions of the base models' parameters, in the dtype that they are loaded in."""
    out = {}
    for name, (_, init) in system.definitions.items():
        shapes = jax.eval_shape(init, jax.random.key(0))
        dtype = getattr(system.bases[name], "param_dtype", None)
        out[name] = jax.tree.map(
            lambda x, dtype=dtype: jax.ShapeDtypeStruct(x.shape, dtype or x.dtype), shapes
        )
    return out


def latents(system: System) -> dict[str, jax.ShapeDtypeStruct]:
    """Description of a batch of latents."""
    return _arrays(system, system.shapes)


def _arrays(system: System, shapes: Any) -> dict[str, jax.ShapeDtypeStruct]:
    size = system.experiment.bench.batch_size
    return {m: jax.ShapeDtypeStruct((size, *s), jnp.float32) for m, s in shapes.items()}


def text_step(system: System) -> dict[str, Any]:
    """One step's noise for `bench.batch_size` pairs: {unguided, guided} x {batched, two_passes}.

    Batched: the conditional and the unconditional pass, and both of the discriminator's gradient,
    are one batch; else one comes after the other. "guided_over_unguided" is the ratio of their
    operations, batched. Nothing is run, and no weights are read: architectures are those of the
    config's files, or of the released models where `config.weights` names none.
    """
    size = system.experiment.bench.batch_size
    report: dict[str, Any] = {}
    for name, is_guided in (("unguided", False), ("guided", True)):
        for way, guide in (("batched", classifier_free), ("two_passes", _two_passes)):
            report[f"{name}_{way}"] = account(*_text_step(system, is_guided, guide), size)
    costs = [report[f"{name}_batched"]["gflop_per_pair"] for name in ("guided", "unguided")]
    return report | {"guided_over_unguided": costs[0] / costs[1]}


def _two_passes(field: Field, scales: Any, uncond: Cond) -> Field:
    """`classifier_free` with a call for each."""

    def guided(x: AV, t: Array, cond: Cond) -> AV:
        with_text, without = field(x, t, cond), field(x, t, uncond)
        return {m: without[m] + scales[m] * (with_text[m] - without[m]) for m in x}

    return guided


def _text_step(system: System, is_guided: bool, guide: Any) -> tuple[Any, tuple]:
    """A jitted step, and descriptions of its arguments."""
    variant = system.experiment.variant("guided")
    text_scales, scales = dict(variant.text_scales), dict(variant.scales)

    def step(params: Any, head: Any, x: Any, t: Any, text: Any, no_text: Any) -> Any:
        eps = joint(
            BaseDenoiser(system.models, params),
            system.log_ratio_of(head, params),
            system.schedules,
            scales if is_guided else {},
            text_guidance=lambda field: guide(field, text_scales, no_text),
        )
        return eps(x, t, text)

    head = jax.eval_shape(system.discriminator[1], jax.random.key(0))
    text = _arrays(system, {m: f.text_shape for m, f in system.formats.items()})
    t = jax.ShapeDtypeStruct((system.experiment.bench.batch_size,), jnp.int32)
    return jax.jit(step), (base_shapes(system), head, latents(system), t, text, text)


def account(function: Any, arguments: tuple, size: int) -> dict[str, float]:
    """XLA's analysis of a jitted function of these arguments, compiled and not run."""
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
