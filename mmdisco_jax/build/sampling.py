# SPDX-License-Identifier: Apache-2.0
"""Config sections to sampling programs."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from jax.tree_util import Partial

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
from mmdisco_jax.guidance.joint import Field, Plan, joint
from mmdisco_jax.media.cutting import ClipSpec
from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.samplers import SAMPLERS
from mmdisco_jax.samplers.api import noise_only
from mmdisco_jax.samplers.levels import Levels, levels, solver_levels
from mmdisco_jax.samplers.sampler import CompiledSampler, Sampler
from mmdisco_jax.training.weights import load_weights
from mmdisco_jax.types import AV, Array, Cond, DenoiseFn


@dataclasses.dataclass(frozen=True, kw_only=True)
class VariantSampler:
    """Samples of a variant: (base params, discriminator params, indices [b], conditions) -> AV.

    Conditions are None, or by name: "given", latents {modality: [b ...]} that are kept; "text" and
    "no_text", embeddings {modality: [b ...]} of prompts and negative prompts.
    """

    sampler: Sampler
    shapes: dict[str, tuple[int, ...]]
    seed: int
    weight: float
    denoiser: Callable[[Any, Any, Any], DenoiseFn]

    @property
    def num_steps(self) -> int:
        return len(self.sampler.levels)

    def compile(self, base: Any, disc: Any, indices: Any, conditions: Any = None) -> "_Compiled":
        given = {"given": (conditions or {}).get("given"), "given_weight": self.weight}
        cond = (conditions or {}).get("text")
        denoise = self.denoiser(base, disc, conditions)
        compiled = self.sampler.compile(
            denoise, self.shapes, seed=self.seed, indices=indices, cond=cond, **given
        )
        return _Compiled(self, compiled)

    def __call__(self, base: Any, disc: Any, indices: Any, conditions: Any = None) -> AV:
        given = {"given": (conditions or {}).get("given"), "given_weight": self.weight}
        cond = (conditions or {}).get("text")
        denoise = self.denoiser(base, disc, conditions)
        return self.sampler.run(
            denoise, self.shapes, seed=self.seed, indices=indices, cond=cond, **given
        )


@dataclasses.dataclass(frozen=True)
class _Compiled:
    variant: VariantSampler
    compiled: CompiledSampler

    @property
    def num_steps(self) -> int:
        return self.compiled.num_steps

    def __call__(
        self, base: Any, disc: Any, indices: Any, conditions: Any = None, *, on_steps: Any = None
    ) -> AV:
        told, denoise = conditions or {}, self.variant.denoiser(base, disc, conditions)
        return self.compiled(
            denoise, indices, told.get("text"), told.get("given"), on_steps=on_steps
        )


def sampler(config: Config, variant: str) -> VariantSampler:
    """Sampler of one of `config.sample.variants`, which override the rest of `config.sample`.

    A sample is a function of (config.sample.seed, its index) and its conditions; the same noise
    serves all variants.
    """
    chosen = variant_settings(config, variant)
    noise = schedules(config)
    base_graphs = {m: base_model(config, m)[0] for m in config.bases}
    steppers = {m: named(chosen.samplers[m], SAMPLERS) for m in noise}
    guided = is_guided(config, variant)
    disc_graph: Any = discriminator(config)[0] if guided else None
    _check_condition(chosen, base_graphs, guided)
    learned = [m for m, s in steppers.items() if s.learned_variance]
    _check_learned(learned, config, variant)

    def eps(params: Any, x: AV, t: Array, cond: Cond) -> AV:
        models = base_models(config, base_graphs, params)
        if learned:
            return noise_only(models[JOINT].denoise_with_variance, but=learned)(x, t, cond)
        return denoise_fn(models)(x, t, cond)

    def log_ratio(params: Any, disc_params: Any, x: AV, t: Array, cond: Cond) -> Array:
        models = base_models(config, base_graphs, params)
        return log_ratio_fn(config, disc_graph, disc_params, models)(x, t, cond)

    def denoiser(base_params: Any, disc_params: Any, conditions: Any) -> DenoiseFn:
        text = _text_guidance(chosen, conditions or {})
        base = Partial(eps, base_params)
        if not guided:
            return text(base)
        h = Partial(log_ratio, base_params, disc_params)
        plan = Plan(interval=chosen.plan.interval or None, every=chosen.plan.every)
        scales = chosen.scales.to_dict()
        return joint(base, h, noise, scales, plan=plan, text_guidance=text)

    return VariantSampler(
        sampler=Sampler(steppers, noise, _levels(chosen, noise), chosen.num_substeps),
        shapes=sample_shapes(config),
        seed=chosen.seed,
        weight=chosen.condition.weight,
        denoiser=denoiser,
    )


def _levels(chosen: Config, noise: dict[str, Schedule]) -> Levels:
    if chosen.grid == "levels":
        return levels(noise, chosen.num_steps, chosen.spacing, chosen.offset)
    if chosen.grid != "solver":
        raise ValueError(f"unknown sample.grid {chosen.grid!r}: choose one of levels, solver.")
    return solver_levels(
        noise,
        chosen.num_steps,
        chosen.spacing,
        to_clean=chosen.to_clean,
        model_time=chosen.model_time,
    )


def _text_guidance(chosen: Config, conditions: Any) -> Callable[[Field], Field]:
    """Text guidance of a field (of noise, of residuals), if there is a text."""
    if "text" not in conditions:
        return lambda field: field
    scales, uncond = chosen.text_scales.to_dict(), conditions["no_text"]
    return lambda field: classifier_free(field, scales, uncond)


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
