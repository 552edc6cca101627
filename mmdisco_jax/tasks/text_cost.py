# SPDX-License-Identifier: Apache-2.0
"""What a step of text-conditioned models costs by the compiler's account, guided and not."""

from typing import Any

import jax
import jax.numpy as jnp

from mmdisco_jax import build
from mmdisco_jax.build import Config
from mmdisco_jax.commands.estimate import account
from mmdisco_jax.guidance.classifier_free import Field, classifier_free
from mmdisco_jax.guidance.joint import joint
from mmdisco_jax.types import AV, Array, Cond


def text_step(config: Config) -> dict[str, Any]:
    """One step's noise for `bench.batch_size` pairs: {unguided, guided} x {batched, two_passes}.

    Batched: the conditional and the unconditional pass, and both of the discriminator's gradient,
    are one batch; else one comes after the other. "guided_over_unguided" is the ratio of their
    operations, batched. Nothing is run, and no weights are read: bases are those of the config's
    files, or of its presets where `config.weights` names none.
    """
    report: dict[str, Any] = {}
    for name, is_guided in (("unguided", False), ("guided", True)):
        for way, guide in (("batched", classifier_free), ("two_passes", _two_passes)):
            step, arguments = _step(config, is_guided, guide)
            report[f"{name}_{way}"] = account(step, arguments, config.bench.batch_size)
    costs = [report[f"{name}_batched"]["gflop_per_pair"] for name in ("guided", "unguided")]
    return report | {"guided_over_unguided": costs[0] / costs[1]}


def _two_passes(field: Field, scales: Any, uncond: Cond) -> Field:
    """`classifier_free` with a call for each."""

    def guided(x: AV, t: Array, cond: Cond) -> AV:
        with_text, without = field(x, t, cond), field(x, t, uncond)
        return {m: without[m] + scales[m] * (with_text[m] - without[m]) for m in x}

    return guided


def _step(config: Config, is_guided: bool, guide: Any) -> tuple[Any, tuple]:
    """A jitted step, and descriptions of its arguments."""
    made = {m: build.base_model(config, m) for m in config.bases}
    graphs = {m: graph for m, (graph, _) in made.items()}
    disc_graph, disc_init = build.discriminator(config)
    noise, size = build.schedules(config), config.bench.batch_size
    variant = build.variant_settings(config, "guided")
    text_scales, scales = variant.text_scales.to_dict(), variant.scales.to_dict()

    def step(params: Any, disc_params: Any, x: Any, t: Any, text: Any, no_text: Any) -> Any:
        models = build.base_models(config, graphs, params)
        h = build.log_ratio_fn(config, disc_graph, disc_params, models)
        eps = joint(
            build.denoise_fn(models),
            h,
            noise,
            scales if is_guided else {},
            text_guidance=lambda field: guide(field, text_scales, no_text),
        )
        return eps(x, t, text)

    params = {m: _described(config, m, init) for m, (_, init) in made.items()}
    disc_params = jax.eval_shape(disc_init, jax.random.key(0))

    def arrays(shapes: Any) -> dict[str, jax.ShapeDtypeStruct]:
        return {m: jax.ShapeDtypeStruct((size, *s), jnp.float32) for m, s in shapes.items()}

    text = arrays(config.bench.text_shapes.to_dict())
    t = jax.ShapeDtypeStruct((size,), jnp.int32)
    x = arrays(build.sample_shapes(config))
    return jax.jit(step), (params, disc_params, x, t, text, text)


def _described(config: Config, name: str, init: Any) -> Any:
    """The base model's parameters in the dtype that they are loaded in."""
    dtype = config.bases[name].param_dtype
    shapes = jax.eval_shape(init, jax.random.key(0))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), shapes)
