# SPDX-License-Identifier: Apache-2.0
"""Config sections to objects: the only reader of a ConfigDict, and the product's wiring."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx

from mmdisco_jax.base_models import BASE_MODELS
from mmdisco_jax.base_models.joint import JOINT, JointModel
from mmdisco_jax.base_models.losses import joint_noise_prediction, noise_prediction
from mmdisco_jax.codecs import CODECS
from mmdisco_jax.discriminator import DISCRIMINATORS
from mmdisco_jax.discriminator.log_ratio import log_ratio
from mmdisco_jax.discriminator.objective import ObjectiveSpec, Problem, objective
from mmdisco_jax.guidance.joint import Plan, PlannedJoint, joint, residual
from mmdisco_jax.inputs import DATASETS
from mmdisco_jax.inputs.cache import open_cache, read_cache
from mmdisco_jax.inputs.sources import open_source
from mmdisco_jax.inputs.transforms import FLIPS
from mmdisco_jax.inputs.windows import FixedWindows, WindowSize
from mmdisco_jax.nn.keys import param_keys
from mmdisco_jax.process import SCHEDULES
from mmdisco_jax.process.noising import TimeSampler
from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.samplers import SAMPLERS
from mmdisco_jax.samplers.grids import timesteps
from mmdisco_jax.samplers.noise import initial, keyed, sample_keys
from mmdisco_jax.samplers.programs import Programs, stretch_of
from mmdisco_jax.samplers.sample import Sampling
from mmdisco_jax.training.loop import LoopSpec
from mmdisco_jax.training.optimizer import adam
from mmdisco_jax.training.state import LossFn
from mmdisco_jax.training.weights import digest, load_weights, read_metadata
from mmdisco_jax.types import DenoiseFn, LogRatioFn

# An ml_collections.ConfigDict: its attributes have no static types.
Config: TypeAlias = Any


def _named(section: Config, registry: Any, *args: Any, **extra: Any) -> Any:
    """The registry's entry `section.name`, called with the rest of the section."""
    fields = section.to_dict()
    maker = registry.get(fields.pop("name"))
    try:
        return maker(*args, **fields, **extra)
    except TypeError as error:
        raise ValueError(f"config of {registry.kind} {section.name!r}: {error}.") from error


def schedules(config: Config) -> dict[str, Schedule]:
    return {m: _named(section, SCHEDULES) for m, section in config.schedules.items()}


def codecs(config: Config) -> dict[str, Any]:
    return {m: _named(section, CODECS) for m, section in config.codecs.items()}


def base_model(config: Config, name: str) -> tuple[nnx.GraphDef, Any]:
    """The graph definition of one base model, and a function key -> its random parameters.

    `name` is a modality, or "joint" for a model of all of them.
    """
    section = config.bases[name].copy_and_resolve_references()
    noise: tuple[Schedule, ...] = (schedules(config)[name],) if name != JOINT else ()
    if name == JOINT:
        with section.unlocked():
            del section.sample_shapes
            del section.prediction

    def make(key: jax.Array) -> nnx.Module:
        return _named(section, BASE_MODELS, *noise, rngs=param_keys(key))

    def init(key: jax.Array) -> nnx.State:
        return nnx.split(make(key))[1]

    graphdef, _ = nnx.split(nnx.eval_shape(lambda: make(jax.random.key(0))))
    return graphdef, jax.jit(init)


def sample_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Of a sample of each modality, as the base models see it."""
    if JOINT in config.bases:
        return {m: tuple(shape) for m, shape in config.bases[JOINT].sample_shapes.items()}
    return {m: tuple(section.sample_shape) for m, section in config.bases.items()}


def joint_loss(config: Config) -> tuple[LossFn, Any]:
    """The loss of a joint base model over raw batches, and its initialiser."""
    graphdef, init = base_model(config, JOINT)
    noise, encode = schedules(config), encoders(config)
    levels = next(iter(noise.values())).num_timesteps
    sampler = TimeSampler(num_timesteps=levels, **config.train.time.to_dict())
    max_weight = config.train.max_weight

    def loss_fn(params, frozen, batch, key, step):
        del frozen, step
        model = base_models(config, {JOINT: graphdef}, {JOINT: params})[JOINT]
        x0 = {m: encode[m](batch[m]) for m in encode}
        return joint_noise_prediction(
            model.training_eps, x0, key, noise, sampler, max_weight=max_weight
        )

    return loss_fn, init


def base_loss(config: Config, modality: str) -> tuple[LossFn, Any]:
    """The loss of one base model over raw batches, and its initialiser."""
    if modality == JOINT:
        return joint_loss(config)
    graphdef, init = base_model(config, modality)
    schedule, encode = schedules(config)[modality], encoders(config)[modality]
    sampler = TimeSampler(num_timesteps=schedule.num_timesteps, **config.train.time.to_dict())
    max_weight = config.train.max_weight

    def loss_fn(params, frozen, batch, key, step):
        del frozen, step
        model = nnx.merge(graphdef, params)
        x0 = encode(batch[modality])
        return noise_prediction(model, x0, key, schedule, sampler, max_weight=max_weight)

    return loss_fn, init


def discriminator(config: Config) -> tuple[nnx.GraphDef, Any]:
    """The graph definition of the discriminator, and a function key -> its random parameters."""

    def make(key: jax.Array) -> nnx.Module:
        return _named(config.discriminator, DISCRIMINATORS, rngs=param_keys(key))

    graphdef, _ = nnx.split(nnx.eval_shape(lambda: make(jax.random.key(0))))
    return graphdef, jax.jit(lambda key: nnx.split(make(key))[1])


def pair_model(graphdef: nnx.GraphDef, params: Any, models: dict[str, Any]) -> Any:
    """The discriminator as (x_t, t) -> logit, on the base models if it reads their features."""
    model = nnx.merge(graphdef, params)
    return model.on_bases(models) if hasattr(model, "on_bases") else model


def log_ratio_fn(
    config: Config, graphdef: nnx.GraphDef, params: Any, models: dict[str, Any]
) -> LogRatioFn:
    """h of the discriminator with these parameters, in the form that the config asks for."""
    model = pair_model(graphdef, params, models)
    return lambda x, t, cond: log_ratio(model(x, t, cond), config.guidance.log_ratio)


def bases(config: Config) -> tuple[dict[str, nnx.GraphDef], dict[str, Any]]:
    """The frozen base models: graph definitions, and parameters from the config's weight files."""
    graphdefs, params = {}, {}
    for m in config.bases:
        graphdefs[m], init = base_model(config, m)
        params[m] = load_weights(config.weights[m], jax.eval_shape(init, jax.random.key(0)))
    return graphdefs, params


def base_models(
    config: Config, graphdefs: dict[str, nnx.GraphDef], params: dict[str, Any]
) -> dict[str, Any]:
    """Models from what `bases` returns: eps networks, or a `JointModel`."""
    models = {m: nnx.merge(graphdefs[m], params[m]) for m in graphdefs}
    if JOINT in models:
        models[JOINT] = JointModel(
            network=models[JOINT],
            schedules=schedules(config),
            prediction=config.bases[JOINT].prediction,
        )
    return models


def denoise_fn(models: dict[str, Any]) -> DenoiseFn:
    """One eps model per modality, or one of all, as a denoiser of the pair."""
    if JOINT in models:
        return models[JOINT].denoise
    return lambda x, t, cond: {m: models[m](x[m], t) for m in x}


def discriminator_loss(config: Config) -> tuple[LossFn, Any, Any]:
    """The discriminator's loss over raw batches, its initialiser, and what stays frozen."""
    graphdef, init = discriminator(config)
    noise, encode = schedules(config), encoders(config)
    train = config.train
    spec = ObjectiveSpec(**train.objective.to_dict())
    levels = next(iter(noise.values())).num_timesteps
    sampler = TimeSampler(num_timesteps=levels, **train.time.to_dict())
    # Cross-entropy of the noisy pairs themselves needs no base model.
    model = nnx.merge(graphdef, jax.eval_shape(init, jax.random.key(0)))
    needs_bases = bool(spec.denoising_weight) or hasattr(model, "on_bases")
    base_graphs, base_params = bases(config) if needs_bases else ({}, {})
    frozen = {"bases": base_params, "fakes": None}
    if spec.fakes != "repaired":
        frozen["fakes"] = fakes(config)

    def loss_fn(params, frozen, batch, key, step):
        models = base_models(config, base_graphs, frozen["bases"])
        problem = Problem(
            schedules=noise,
            time_sampler=sampler,
            denoise=denoise_fn(models),
            residual=lambda h: residual(h, noise),
        )
        model = pair_model(graphdef, params, models)
        x0 = {m: encode[m](batch[m]) for m in encode}
        return objective(model, x0, frozen["fakes"], key, step, problem, spec)

    return loss_fn, init, frozen


def fakes(config: Config) -> dict[str, jax.Array]:
    """Latents {m: float16 [n ...]} that the base models generated (see commands/fakes.py)."""
    if not config.weights.fakes:
        raise ValueError(
            "training with generated fakes needs config.weights.fakes: run prepare with "
            "--config.fakes.num_samples=N, then give the folder it names."
        )
    cache = open_cache(
        config.weights.fakes, {"weights": base_digests(config.weights, config.bases)}
    )
    return jax.tree.map(jnp.asarray, read_cache(cache))


def latents_key(config: Config, directory: Path) -> dict[str, Any]:
    """What decides the latents of the clips that are prepared in `directory`."""
    codecs_text = json.loads(config.to_json_best_effort())["codecs"]
    return {"clips": directory.parent.name, "codecs": codecs_text, "clip": config.clip.to_dict()}


def encoders(config: Config) -> dict[str, Any]:
    """Functions {m: batch of clips -> latents}; cached latents are taken as they are."""
    if config.data.latents:
        return {m: lambda x: x for m in config.codecs}
    return {m: codec.encode for m, codec in codecs(config).items()}


def training_task(config: Config) -> tuple[LossFn, Any, Any]:
    """What `config.train.target` names: (loss over raw batches, initialiser, frozen parameters)."""
    target = config.train.target
    if target == "discriminator":
        loss_fn, init, frozen = discriminator_loss(config)
    elif target in config.bases:
        loss_fn, init = base_loss(config, target)
        frozen = None
    else:
        known = ", ".join(["discriminator", *config.bases])
        raise ValueError(f"unknown training target {target!r}: choose one of {known}.")
    return loss_fn, init, frozen


def start_params(config: Config, init: Any) -> Any:
    """Parameters of the file `config.train.init_from`, as `init` shapes them; None if unset."""
    path = config.train.init_from
    return load_weights(path, jax.eval_shape(init, jax.random.key(0))) if path else None


def optimizer(config: Config) -> Any:
    train = config.train
    return adam(
        learning_rate=train.learning_rate,
        num_steps=train.num_steps,
        warmup_steps=train.warmup_steps,
        final_fraction=train.final_fraction,
        b2=train.b2,
        clip_norm=train.clip_norm,
        weight_decay=train.weight_decay,
    )


def loop(config: Config) -> LoopSpec:
    train = config.train
    return LoopSpec(
        num_steps=train.num_steps, log_every=train.log_every, save_every=train.save_every
    )


def data_dir(config: Config) -> Path:
    return Path(config.data.dir)


def clips(config: Config, split: str, *, in_memory: bool = False) -> Any:
    """The config's prepared clips, as raw examples; ValueError if their rates are not its own."""
    where = _prepared(config) or config.data.name
    source = open_source(where, split, data_dir=data_dir(config), in_memory=in_memory)
    for name in ("fps", "sample_rate_hz"):
        prepared, wanted = source.metadata.get(name), config.clip[name]
        if prepared is not None and prepared != wanted:
            raise ValueError(
                f"the clips in {source.directory} have {name} = {prepared}, but config.clip.{name} "
                f"is {wanted}: prepare the data with that rate, or change the config."
            )
    return source


def _prepared(config: Config) -> Path | None:
    """The folder of the very dataset that the config's options describe, if it is there.

    None where the media are gone, or have changed since: then the one dataset there is will do.
    """
    builder = DATASETS.get(config.data.name)
    try:
        name = builder.config(**config.data.options.to_dict()).name
    except (FileNotFoundError, ValueError, TypeError):
        return None
    folder = data_dir(config) / config.data.name / name / str(builder.VERSION)
    return folder if folder.is_dir() else None


def training_examples(config: Config) -> Any:
    """What training reads: clips, or their latents if `config.data.latents` names a cache."""
    source = clips(config, "train", in_memory=config.data.in_memory and not config.data.latents)
    if not config.data.latents:
        return source
    if config.data.flip != "off":
        raise ValueError(
            f"config.data.flip is {config.data.flip!r}, but cached latents cannot be mirrored: set "
            "config.data.flip=off, or config.data.latents=''."
        )
    return open_cache(config.data.latents, latents_key(config, source.directory))


def fixed_clips(config: Config, split: str) -> Any:
    """The same, cut into the config's clip length one window after the other, to be measured."""
    source = clips(config, split)
    size = window(config, source)
    return source if size is None else FixedWindows(source, size)


def window(config: Config, source: Any) -> WindowSize | None:
    """The window that is drawn from prepared clips that are longer than the config's; else None."""
    seconds = config.clip.seconds
    if source.metadata.get("clip_seconds", seconds) == seconds:
        return None
    return WindowSize(
        num_frames=round(seconds * config.clip.fps),
        num_samples=round(seconds * config.clip.sample_rate_hz),
    )


def flip_probability(config: Config) -> float:
    """What `config.data.flip` names."""
    if config.data.flip not in FLIPS:
        raise ValueError(
            f"config.data.flip is {config.data.flip!r}: choose one of {', '.join(FLIPS)}."
        )
    return FLIPS[config.data.flip]


def sampler(config: Config, variant: str) -> Programs:
    """Programs from (base params, discriminator params, sample indices [b]) to samples AV.

    `variant` names one of `config.sample.variants`, which override the rest of `config.sample`. A
    sample is a function of (config.sample.seed, its index); the same noise serves all variants.
    """
    chosen = variant_settings(config, variant)
    noise, codec = schedules(config), codecs(config)
    base_graphs = {m: base_model(config, m)[0] for m in config.bases}
    shapes = sample_shapes(config)
    steppers = {m: _named(chosen.samplers[m], SAMPLERS) for m in codec}
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
    if hasattr(nnx.merge(graphdef, params), "on_bases"):
        _check_bases(path, base_digests(config.weights, config.bases))
    return params


def base_digests(weights: Mapping[str, str], modalities: Iterable[str]) -> dict[str, str]:
    """SHA-256 of the base models' weight files: a discriminator on their features needs these."""
    return {m: digest(weights[m]) for m in modalities if Path(weights[m]).is_file()}


def _check_bases(path: str, found: dict[str, str]) -> None:
    """ValueError if the discriminator's file names other base weights than the config's."""
    wanted = json.loads(read_metadata(path).get("bases", "{}"))
    for m, digest_of in wanted.items():
        if found.get(m) != digest_of:
            raise ValueError(
                f"{path} reads features of a {m} model with SHA-256 {digest_of[:12]}, but the "
                f"config's weights.{m} is {found.get(m, 'missing')[:12]}: give the weights it was "
                "trained on, or train the discriminator again."
            )
