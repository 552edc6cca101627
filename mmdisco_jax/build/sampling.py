# SPDX-License-Identifier: Apache-2.0
"""Config sections to sampling programs."""

from typing import Any

import jax
from flax import nnx

from mmdisco_jax.build.models import (
    base_digests,
    base_model,
    base_models,
    check_bases,
    denoise_fn,
    discriminator,
    log_ratio_fn,
    sample_shapes,
)
from mmdisco_jax.build.provenance import check_schedules
from mmdisco_jax.build.sections import Config, codecs, named, schedules
from mmdisco_jax.guidance.joint import Plan, PlannedJoint, joint, residual
from mmdisco_jax.samplers import SAMPLERS
from mmdisco_jax.samplers.grids import timesteps
from mmdisco_jax.samplers.noise import initial, keyed, sample_keys
from mmdisco_jax.samplers.programs import Programs, stretch_of
from mmdisco_jax.samplers.sample import Sampling
from mmdisco_jax.training.weights import load_weights


def sampler(config: Config, variant: str) -> Programs:
    """Programs from (base params, discriminator params, sample indices [b]) to samples AV.

    `variant` names one of `config.sample.variants`, which override the rest of `config.sample`. A
    sample is a function of (config.sample.seed, its index); the same noise serves all variants.
    """
    chosen = variant_settings(config, variant)
    noise, codec = schedules(config), codecs(config)
    base_graphs = {m: base_model(config, m)[0] for m in config.bases}
    shapes = sample_shapes(config)
    steppers = {m: named(chosen.samplers[m], SAMPLERS) for m in codec}
    levels = next(iter(noise.values()))
    grid = timesteps(levels, chosen.num_steps, chosen.spacing, chosen.offset)
    scales = chosen.scales.to_dict()
    plan = Plan(interval=chosen.plan.interval or None, every=chosen.plan.every)
    guided = any(scales.values())
    disc_graph = discriminator(config)[0] if guided else None
    stretch = stretch_of(len(grid))

    def sampling(base_params: Any, disc_params: Any, indices: jax.Array) -> Sampling:
        models = base_models(config, base_graphs, base_params)
        denoise = denoise_fn(models)
        if disc_graph is not None:
            h = log_ratio_fn(config, disc_graph, disc_params, models)
            if plan == Plan():
                denoise = joint(denoise, h, noise, scales)
            else:
                denoise = PlannedJoint(denoise, residual(h, noise), scales, plan)
        keys = sample_keys(chosen.seed, indices)
        return Sampling(
            denoise, steppers, noise, grid, keyed(keys), num_substeps=chosen.num_substeps
        )

    def begin(base_params: Any, disc_params: Any, indices: jax.Array) -> Any:
        start = initial(sample_keys(chosen.seed, indices), shapes)
        return sampling(base_params, disc_params, indices).begin(start)

    def proceed(base_params: Any, disc_params: Any, indices: Any, carry: Any, first: Any) -> Any:
        return sampling(base_params, disc_params, indices).proceed(carry, first, stretch)

    return Programs(jax.jit(begin), jax.jit(proceed), len(grid), stretch)


def variant_names(config: Config) -> list[str]:
    """The variants to sample, the unguided ones first."""
    return sorted(config.sample.variants, key=lambda name: (is_guided(config, name), name))


def is_guided(config: Config, variant: str) -> bool:
    return any(variant_settings(config, variant).scales.values())


def variant_settings(config: Config, variant: str) -> Config:
    """The sample section with the variant's overrides; ValueError for an unknown variant."""
    variants = config.sample.variants
    if variant not in variants:
        raise ValueError(f"unknown variant {variant!r}: choose one of {', '.join(variants)}.")
    chosen = config.sample.copy_and_resolve_references()
    for m, section in variants[variant].get("samplers", {}).items():
        if "name" in section:  # another sampler has settings of its own
            with chosen.unlocked():
                chosen.samplers[m] = section.copy_and_resolve_references()
    chosen.update(variants[variant])
    return chosen


def discriminator_params(config: Config, variant: str) -> Any:
    """The discriminator's weights if the variant is guided, else None."""
    settings = variant_settings(config, variant)
    if not is_guided(config, variant):
        return None
    graphdef, init = discriminator(config)
    path = settings.discriminator_weights or config.weights.discriminator
    params = load_weights(path, jax.eval_shape(init, jax.random.key(0)))
    check_schedules(config, path)
    if hasattr(nnx.merge(graphdef, params), "on_bases"):
        check_bases(path, base_digests(config.weights, config.bases))
    return params
