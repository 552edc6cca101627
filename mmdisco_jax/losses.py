# SPDX-License-Identifier: Apache-2.0
"""Training losses of an experiment: base models, discriminator and super-resolution."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mmdisco_jax.discriminator.objective import Problem, Texts, objective
from mmdisco_jax.guidance.joint import residual
from mmdisco_jax.inputs.cache import open_cache, read_cache
from mmdisco_jax.pair import BaseDenoiser
from mmdisco_jax.process.loss_aware_sampling import LossSecondMoment
from mmdisco_jax.process.noising import LevelSampler, TimeSampler
from mmdisco_jax.system import System
from mmdisco_jax.training.state import LossFn
from mmdisco_jax.types import AV, TEXT, Array, Params

DISCRIMINATOR, SUPER_RESOLUTION = "discriminator", "super_resolution"
UNIFORM, LOSS_SECOND_MOMENT = "uniform", "loss_second_moment"


class TrainingLoss(NamedTuple):
    """A loss over raw batches, and what it needs.

    init: key -> random parameters. frozen: parameters that are not trained. history: of the level
    sampler before the first step, or None.
    """

    loss_fn: LossFn
    init: Callable[[Array], Params]
    frozen: Any = None
    history: Any = None


def training_loss(system: System, target: str) -> TrainingLoss:
    """The loss of "discriminator", "super_resolution", or a base model by its name.

    Raises:
      ValueError: another target, or settings that do not go together.
    """
    if target == DISCRIMINATOR:
        return discriminator_loss(system)
    if target == SUPER_RESOLUTION:
        return super_resolution_loss(system)
    if target in system.bases:
        return base_loss(system, target)
    known = ", ".join([DISCRIMINATOR, SUPER_RESOLUTION, *system.bases])
    raise ValueError(f"unknown training target {target!r}: choose one of {known}.")


def base_loss(system: System, name: str) -> TrainingLoss:
    """The noise prediction loss of one base model."""
    base = system.bases[name]
    graphdef, init = system.definitions[name]
    encode = encoders(system, base.modalities)
    levels = level_sampler(system, name)
    max_weight = system.experiment.train.max_weight

    def loss_fn(params, frozen, batch, key, step, history):
        del frozen, step
        network = nnx.merge(graphdef, params)
        x0 = {m: encode[m](batch[m]) for m in encode}
        loss, metrics, history = base.loss(network, x0, key, levels, history, max_weight=max_weight)
        if isinstance(levels, LossSecondMoment):
            metrics = metrics | {"full_levels": history.full().mean()}
        return loss, metrics, history

    return TrainingLoss(loss_fn, init, history=levels.init())


def discriminator_loss(system: System) -> TrainingLoss:
    """Cross-entropy and denoising losses of the discriminator, on the frozen base models."""
    train, schedules = system.experiment.train, system.schedules
    _, init = system.discriminator
    encode = encoders(system, system.modalities)
    spec = train.objective
    levels = uniform_levels(system, DISCRIMINATOR, next(iter(schedules.values())).num_timesteps)
    # Cross-entropy of the noisy pairs themselves needs no base model.
    needs_bases = bool(spec.denoising_weight) or system.reads_features
    frozen: dict[str, Any] = {"bases": system.base_params if needs_bases else {}, "fakes": None}
    if spec.fakes != "mismatched":
        frozen["fakes"] = fakes(system)
    texts = system.reads_text
    if texts:
        frozen["no_text"] = {m: jnp.asarray(f([""])) for m, f in system.text_encoders.items()}

    def loss_fn(params, frozen, batch, key, step, history):
        problem = Problem(
            schedules=schedules,
            time_sampler=levels,
            denoise=BaseDenoiser(system.models, frozen["bases"]),
            residual=lambda h: residual(h, schedules),
        )
        model = system.log_ratio_of(params, frozen["bases"]).model
        x0 = {m: encode[m](batch[m]) for m in encode}
        made, all_texts = frozen["fakes"], None
        if texts:
            all_texts = Texts(
                real={m: batch[TEXT + m] for m in x0},
                generated={m: made[TEXT + m] for m in x0} if made else None,
                none=frozen["no_text"],
            )
            made = {m: made[m] for m in x0} if made else None
        loss, metrics = objective(model, x0, made, key, step, problem, spec, all_texts)
        return loss, metrics, history

    return TrainingLoss(loss_fn, init, frozen)


def super_resolution_loss(
    system: System, criterion: Callable[..., Any] | None = None
) -> TrainingLoss:
    """The loss over pairs {"high": [b n H W 3], "low": [b n h w 3]}.

    criterion: as `picture_loss` takes it; by default the error of the noise.
    """
    model = require_super_resolution(system)
    graphdef, init = model.definition()
    train = system.experiment.train
    levels = uniform_levels(system, SUPER_RESOLUTION, model.schedule.num_timesteps)

    def loss_fn(params, frozen, batch, key, step, history):
        del frozen, step
        network = nnx.merge(graphdef, params)
        loss, metrics = model.loss(
            network, batch, key, levels, max_weight=train.max_weight, criterion=criterion
        )
        return loss, metrics, history

    return TrainingLoss(loss_fn, init)


def require_super_resolution(system: System) -> Any:
    """The recipe of the experiment's super-resolution; ValueError if it has none."""
    if system.experiment.super_resolution is None:
        raise ValueError(
            "config.super_resolution is empty: use a config that sets it, such as "
            "configs/super_resolution.py."
        )
    return system.experiment.super_resolution


def encoders(system: System, modalities: tuple[str, ...]) -> dict[str, Callable[[Any], Array]]:
    """Functions from raw batches to latents, for use inside a training step.

    Cached latents are taken as they are.

    Raises:
      ValueError: codecs that are networks, without a cache: a training step does not run them.
    """
    if system.experiment.data.latents:
        return {m: lambda x: x for m in modalities}
    slow = [m for base in system.bases.values() for m in base.slow_codecs if m in modalities]
    if slow:
        raise ValueError(
            f"the codecs of {', '.join(slow)} are networks, which a training step does not run: "
            "set config.data.latents to a folder, and run prepare, which encodes the clips once."
        )
    return {m: system.codecs[m].encode for m in modalities}


def level_sampler(system: System, name: str) -> LevelSampler:
    """Distribution of noise levels in the training of base model `name`."""
    train, base = system.experiment.train, system.bases[name]
    total = next(iter(base.schedules.values())).num_timesteps
    if train.time_sampler != LOSS_SECOND_MOMENT:
        return uniform_levels(system, name, total)
    if train.time_sampler not in base.LEVEL_SAMPLERS:
        raise _needs_joint(train.time_sampler, name)
    if train.time.focus:
        raise ValueError(
            f"train.time.focus={train.time.focus} is for uniform noise levels, but "
            f"train.time_sampler is {train.time_sampler!r}: set train.time.focus=0, or "
            "train.time_sampler='uniform'."
        )
    return LossSecondMoment(num_timesteps=total)


def uniform_levels(system: System, target: str, num_timesteps: int) -> TimeSampler:
    """Uniform noise levels with the share `train.time`; ValueError if the config asks for more."""
    train, known = system.experiment.train, (UNIFORM, LOSS_SECOND_MOMENT)
    if train.time_sampler not in known:
        raise ValueError(
            f"unknown train.time_sampler {train.time_sampler!r}: choose one of {', '.join(known)}."
        )
    if train.time_sampler != UNIFORM:
        raise _needs_joint(train.time_sampler, target)
    focus = train.time
    return TimeSampler(
        num_timesteps=num_timesteps, focus=focus.focus, low=focus.low, high=focus.high
    )


def _needs_joint(name: str, target: str) -> ValueError:
    return ValueError(
        f"train.time_sampler {name!r} needs the losses of a joint base model, but train.target is "
        f"{target!r}: set train.time_sampler='uniform'."
    )


def fakes(system: System) -> AV:
    """Latents {m: float16 [n ...]} that the base models generated, for training a discriminator.

    Raises:
      ValueError: no folder is named, or the fakes are of other base models.
    """
    folder = system.experiment.weights.get("fakes", "")
    if not folder:
        raise ValueError(
            "training with generated fakes needs config.weights.fakes: run prepare with "
            "--config.fakes.num_samples=N, then give the folder it names."
        )
    cache = open_cache(folder, {"weights": system.base_digests})
    return jax.tree.map(jnp.asarray, read_cache(cache))
