# SPDX-License-Identifier: Apache-2.0
"""Config sections to sampling programs."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from mmdisco_jax.base_models.joint import JOINT
from mmdisco_jax.build.models import (
    base_digests,
    base_model,
    base_models,
    check_bases,
    clip_shapes,
    denoise_fn,
    discriminator,
    log_ratio_fn,
    sample_shapes,
)
from mmdisco_jax.build.pretrained import require_sources
from mmdisco_jax.build.provenance import check_schedules
from mmdisco_jax.build.sections import Config, named, schedules
from mmdisco_jax.guidance.classifier_free import classifier_free
from mmdisco_jax.guidance.joint import Plan, PlannedJoint, ResidualFn, guided_by, residual
from mmdisco_jax.media.cutting import ClipSpec
from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.samplers import SAMPLERS
from mmdisco_jax.samplers.api import Times, noise_only
from mmdisco_jax.samplers.conditional import Conditional
from mmdisco_jax.samplers.grids import solver_grid, timesteps
from mmdisco_jax.samplers.noise import initial, keyed, sample_keys
from mmdisco_jax.samplers.programs import Programs, stretch_of
from mmdisco_jax.samplers.sample import Sampling
from mmdisco_jax.training.weights import load_weights
from mmdisco_jax.types import DenoiseFn


def sampler(config: Config, variant: str) -> Programs:
    """Programs from (base params, discriminator params, sample indices [b]) to samples AV.

    They may have a fourth argument, conditions by name: "given", latents {modality: [b ...]} that
    are kept; "text" and "no_text", embeddings {modality: [b ...]} of prompts and negative prompts.
    `variant` names one of `config.sample.variants`, which override the rest of `config.sample`. A
    sample is a function of (config.sample.seed, its index) and its conditions; the same noise
    serves all variants.
    """
    chosen = variant_settings(config, variant)
    noise, shapes = schedules(config), sample_shapes(config)
    base_graphs = {m: base_model(config, m)[0] for m in config.bases}
    steppers = {m: named(chosen.samplers[m], SAMPLERS) for m in noise}
    grid = _grid(chosen, next(iter(noise.values())))
    guided = is_guided(config, variant)
    disc_graph = discriminator(config)[0] if guided else None
    _check_condition(chosen, base_graphs, guided)
    learned = [m for m, s in steppers.items() if getattr(s, "variance", "") == "learned_range"]
    _check_learned(learned, config, variant)
    stretch = stretch_of(len(grid))

    def sampling(base_params: Any, disc_params: Any, indices: Any, conditions: Any) -> Sampling:
        models = base_models(config, base_graphs, base_params)
        denoise = denoise_fn(models)
        if learned:
            denoise = noise_only(models[JOINT].denoise_with_variance, but=learned)
        with_text = _classifier_free(chosen, conditions)
        denoise = with_text(denoise)
        if disc_graph is not None:
            h = log_ratio_fn(config, disc_graph, disc_params, models)
            denoise = _guided(chosen, denoise, with_text(residual(h, noise)))
        keys = sample_keys(chosen.seed, indices)
        cond = conditions.get("text")
        run = Sampling(denoise, steppers, noise, grid, keyed(keys), cond, chosen.num_substeps)
        given = conditions.get("given")
        if given is None:
            return run
        parts = {field.name: getattr(run, field.name) for field in dataclasses.fields(run)}
        fixed = {m: initial(keys, shapes)[m] for m in given}
        return Conditional(**parts, given=given, fixed=fixed, weight=chosen.condition.weight)

    def begin(base_params: Any, disc_params: Any, indices: Any, conditions: Any = None) -> Any:
        start = initial(sample_keys(chosen.seed, indices), shapes)
        return sampling(base_params, disc_params, indices, conditions or {}).begin(start)

    def proceed(base_params: Any, disc_params: Any, indices: Any, *rest: Any) -> Any:
        *conditions, carry, first = rest
        run = sampling(base_params, disc_params, indices, conditions[0] if conditions else {})
        return run.proceed(carry, first, stretch)

    return Programs(jax.jit(begin), jax.jit(proceed), len(grid), stretch)


def _grid(chosen: Config, schedule: Schedule) -> Times:
    if chosen.grid == "levels":
        return timesteps(schedule, chosen.num_steps, chosen.spacing, chosen.offset)
    if chosen.grid != "solver":
        raise ValueError(f"unknown sample.grid {chosen.grid!r}: choose one of levels, solver.")
    return solver_grid(
        schedule,
        chosen.num_steps,
        chosen.spacing,
        to_clean=chosen.to_clean,
        model_time=chosen.model_time,
    )


def _classifier_free(chosen: Config, conditions: Any) -> Any:
    """What puts a field (of noise, of residuals) under the text's guidance, if there is a text."""
    if "text" not in conditions:
        return lambda field: field
    scales, uncond = chosen.text_scales.to_dict(), conditions["no_text"]
    return lambda field: classifier_free(field, scales, uncond)


def _guided(chosen: Config, denoise: DenoiseFn, r: ResidualFn) -> Any:
    """The denoiser with the discriminator's guidance, by the variant's scales and plan."""
    scales = chosen.scales.to_dict()
    plan = Plan(interval=chosen.plan.interval or None, every=chosen.plan.every)
    return (
        guided_by(denoise, r, scales) if plan == Plan() else PlannedJoint(denoise, r, scales, plan)
    )


def _check_condition(chosen: Config, base_graphs: dict[str, Any], guided: bool) -> None:
    if chosen.condition.given and JOINT not in base_graphs and not guided:
        raise ValueError(
            f"sample.condition.given is {chosen.condition.given!r}, but two models on their own "
            "know nothing of each other: use a joint base model, or guidance (sample.scales)."
        )


def _check_learned(learned: list[str], config: Config, variant: str) -> None:
    if not learned:
        return
    if JOINT not in config.bases or not config.bases[JOINT].learn_sigma:
        raise ValueError(
            f"the samplers of {learned} take the base model's variance (learned_range), but it has "
            "none: train a joint model with learn_sigma, or use fixed_small or fixed_large."
        )
    if is_guided(config, variant):
        raise ValueError(
            f"variant {variant!r} guides the noise, and the samplers of {learned} take a learned "
            "variance with it: use fixed_small or fixed_large in a guided variant."
        )


def clip_spec(config: Config) -> ClipSpec:
    """What a media file is converted to, for the config's models."""
    frames, height, width, _ = clip_shapes(config)["video"]
    clip = config.clip
    if frames != round(clip.seconds * clip.fps):
        raise ValueError(
            f"config.clip has {clip.seconds} s at {clip.fps} fps, but the models make {frames} "
            "frames: change config.clip, or the shapes of config.bases."
        )
    return ClipSpec(
        clip_seconds=clip.seconds,
        fps=clip.fps,
        height=height,
        width=width,
        sample_rate_hz=clip.sample_rate_hz,
        spatial=config.data.options.get("spatial", "pad"),
    )


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


def require_files(config: Config, variants: Sequence[str] = ()) -> None:
    """Sees to it that all files for these variants are here, before any work starts.

    Raises:
      FileNotFoundError: each file that is missing, and where it should be.
    """
    for variant in filter(lambda name: is_guided(config, name), variants):
        settings = variant_settings(config, variant)
        path = settings.discriminator_weights or config.weights.discriminator
        if not Path(path).is_file():
            raise FileNotFoundError(
                f"config.weights.discriminator={path!r}: no such file. Train a discriminator, or "
                "convert a released one, and name its file."
            )
    require_sources(config)


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
        check_bases(path, base_digests(config))
    return params
