# SPDX-License-Identifier: Apache-2.0
"""Config sections to what a training optimises, and how."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mmdisco_jax.base_models.joint import JOINT
from mmdisco_jax.base_models.losses import joint_noise_prediction, noise_prediction
from mmdisco_jax.build.codecs import encoders
from mmdisco_jax.build.levels import level_sampler, uniform_levels
from mmdisco_jax.build.models import (
    base_digests,
    base_model,
    base_models,
    bases,
    denoise_fn,
    discriminator,
    pair_model,
)
from mmdisco_jax.build.sections import Config, schedules
from mmdisco_jax.build.texts import texts
from mmdisco_jax.build.upscaling import SUPER_RESOLUTION, super_resolution_loss
from mmdisco_jax.discriminator.objective import ObjectiveSpec, Problem, Texts, objective
from mmdisco_jax.guidance.joint import residual
from mmdisco_jax.inputs.cache import open_cache, read_cache
from mmdisco_jax.process.noising import TimeSampler
from mmdisco_jax.training.loop import LoopSpec
from mmdisco_jax.training.optimizer import adam
from mmdisco_jax.training.state import LossFn, RememberingLossFn
from mmdisco_jax.training.weights import load_weights
from mmdisco_jax.types import TEXT


def training_task(config: Config) -> tuple[LossFn | RememberingLossFn, Any, Any]:
    """What `config.train.target` names: (loss over raw batches, initialiser, frozen parameters).

    The loss is one with a memory where `loss_memory` gives the first.
    """
    target = config.train.target
    if target == "discriminator":
        loss_fn, init, frozen = discriminator_loss(config)
    elif target in config.bases:
        loss_fn, init = base_loss(config, target)
        frozen = None
    elif target == SUPER_RESOLUTION:
        loss_fn, init = super_resolution_loss(config)
        frozen = None
    else:
        known = ", ".join(["discriminator", SUPER_RESOLUTION, *config.bases])
        raise ValueError(f"unknown training target {target!r}: choose one of {known}.")
    return loss_fn, init, frozen


def base_loss(config: Config, modality: str) -> tuple[LossFn | RememberingLossFn, Any]:
    """The loss of one base model over raw batches, and its initialiser."""
    if modality == JOINT:
        return joint_loss(config)
    graphdef, init = base_model(config, modality)
    schedule, encode = schedules(config)[modality], encoders(config)[modality]
    sampler = uniform_levels(config, schedule.num_timesteps)
    max_weight = config.train.max_weight

    def loss_fn(params, frozen, batch, key, step):
        del frozen, step
        model = nnx.merge(graphdef, params)
        x0 = encode(batch[modality])
        return noise_prediction(model, x0, key, schedule, sampler, max_weight=max_weight)

    return loss_fn, init


def joint_loss(config: Config) -> tuple[LossFn | RememberingLossFn, Any]:
    """The loss of a joint base model over raw batches, and its initialiser."""
    graphdef, init = base_model(config, JOINT)
    noise, encode = schedules(config), encoders(config)
    sampler = level_sampler(config)
    options = {
        "max_weight": config.train.max_weight,
        "learned_variance": config.bases[JOINT].learn_sigma,
    }

    def terms(params, batch, key, history):
        model = base_models(config, {JOINT: graphdef}, {JOINT: params})[JOINT]
        x0 = {m: encode[m](batch[m]) for m in encode}
        return joint_noise_prediction(
            model.training_eps, x0, key, noise, sampler, history, **options
        )

    def plain(params, frozen, batch, key, step):
        del frozen, step
        return terms(params, batch, key, None)[:2]

    def remembering(params, frozen, batch, key, step, history):
        del frozen, step
        loss, metrics, history = terms(params, batch, key, history)
        return loss, metrics | {"full_levels": history.full().mean()}, history

    return plain if isinstance(sampler, TimeSampler) else remembering, init


def discriminator_loss(config: Config) -> tuple[LossFn, Any, Any]:
    """The discriminator's loss over raw batches, its initialiser, and what stays frozen."""
    graphdef, init = discriminator(config)
    noise, encode = schedules(config), encoders(config)
    train = config.train
    spec = ObjectiveSpec(**train.objective.to_dict())
    levels = next(iter(noise.values())).num_timesteps
    sampler = uniform_levels(config, levels)
    # Cross-entropy of the noisy pairs themselves needs no base model.
    model = nnx.merge(graphdef, jax.eval_shape(init, jax.random.key(0)))
    needs_bases = bool(spec.denoising_weight) or hasattr(model, "on_bases")
    base_graphs, base_params = bases(config) if needs_bases else ({}, {})
    frozen: dict[str, Any] = {"bases": base_params, "fakes": None}
    if spec.fakes != "mismatched":
        frozen["fakes"] = fakes(config)
    if config.texts:
        frozen["no_text"] = {m: jnp.asarray(f([""])) for m, f in texts(config).items()}

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
        if not config.texts:
            return objective(model, x0, frozen["fakes"], key, step, problem, spec)
        made = frozen["fakes"]
        told = Texts(
            real={m: batch[TEXT + m] for m in x0},
            generated={m: made[TEXT + m] for m in x0} if made else None,
            none=frozen["no_text"],
        )
        made = {m: made[m] for m in x0} if made else None
        return objective(model, x0, made, key, step, problem, spec, told)

    return loss_fn, init, frozen


def fakes(config: Config) -> dict[str, jax.Array]:
    """Latents {m: float16 [n ...]} that the base models generated (see commands/fakes.py)."""
    if not config.weights.fakes:
        raise ValueError(
            "training with generated fakes needs config.weights.fakes: run prepare with "
            "--config.fakes.num_samples=N, then give the folder it names."
        )
    cache = open_cache(config.weights.fakes, {"weights": base_digests(config)})
    return jax.tree.map(jnp.asarray, read_cache(cache))


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
