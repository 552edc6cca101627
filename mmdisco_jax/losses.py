# SPDX-License-Identifier: Apache-2.0
"""Training losses of an experiment: base models, discriminator and super-resolution."""

import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmdisco_jax.discriminator.objective import Problem, Texts, fake_indices, objective
from mmdisco_jax.guidance.joint import residual
from mmdisco_jax.inputs.cache import CacheSource, open_cache
from mmdisco_jax.pair import BaseDenoiser
from mmdisco_jax.process.loss_aware_sampling import LossSecondMoment
from mmdisco_jax.process.noising import LevelSampler, TimeSampler
from mmdisco_jax.process.schedules import common
from mmdisco_jax.sections import Training
from mmdisco_jax.system import System
from mmdisco_jax.training.state import LossFn
from mmdisco_jax.types import FAKE, TEXT, Array, Params

DISCRIMINATOR, SUPER_RESOLUTION = "discriminator", "super_resolution"
UNIFORM, LOSS_SECOND_MOMENT = "uniform", "loss_second_moment"
_STEPS_AT_ONCE = 64  # whose fakes are drawn by one call


class TrainingLoss(NamedTuple):
    """A loss over raw batches, and what it needs.

    init: key -> random parameters. frozen: parameters that are not trained. history: of the level
    sampler before the first step, or None. rows: step -> arrays that join this process's rows of
    the step's batch, or None.
    """

    loss_fn: LossFn
    init: Callable[[Array], Params]
    frozen: Any = None
    history: Any = None
    rows: "FakeRows | None" = None


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
        x0 = {m: f(batch) for m, f in encode.items()}
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
    levels = uniform_levels(system, DISCRIMINATOR, common(schedules).num_timesteps)
    # Cross-entropy of the noisy pairs themselves needs no base model.
    needs_bases = bool(spec.denoising_weight) or system.reads_features
    frozen: dict[str, Any] = {"bases": system.base_params if needs_bases else {}}
    rows = fakes(system) if spec.fakes != "mismatched" and spec.ce_weight else None
    texts = system.reads_text
    if texts:
        frozen["no_text"] = {m: np.asarray(f([""])) for m, f in system.text_encoders.items()}
        system.release_text_encoders()

    def loss_fn(params, frozen, batch, key, step, history):
        problem = Problem(
            schedules=schedules,
            time_sampler=levels,
            denoise=BaseDenoiser(system.models, frozen["bases"]),
            residual=lambda h: residual(h, schedules),
        )
        model = system.log_ratio_of(params, frozen["bases"]).model
        x0 = {m: f(batch) for m, f in encode.items()}
        made, all_texts = ({m: batch[FAKE + m] for m in x0} if rows else None), None
        if texts:
            all_texts = Texts(
                real={m: batch[TEXT + m] for m in x0},
                generated={m: batch[FAKE + TEXT + m] for m in x0} if rows else None,
                none=frozen["no_text"],
            )
        loss, metrics = objective(model, x0, made, key, step, problem, spec, all_texts)
        return loss, metrics, history

    return TrainingLoss(loss_fn, init, frozen, rows=rows)


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
    """Functions from whole raw batches to latents {m: f}, for use inside a training step.

    A batch holds cached latents by modality, which are taken as they are, or "video" and "audio",
    of which each modality reads its own.

    Raises:
      ValueError: codecs that are networks, without a cache: a training step does not run them.
    """
    if system.experiment.data.latents:
        return {m: operator.itemgetter(m) for m in modalities}
    slow = [m for base in system.bases.values() for m in base.slow_codecs if m in modalities]
    if slow:
        raise ValueError(
            f"the codecs of {', '.join(slow)} are networks, which a training step does not run: "
            "set config.data.latents to a folder, and run prepare, which encodes the clips once."
        )

    def encoder(modality: str) -> Callable[[Any], Array]:
        codec, signal = system.codecs[modality], system.signal(modality)
        return lambda batch: codec.encode(batch[signal])

    return {m: encoder(m) for m in modalities}


def level_sampler(system: System, name: str) -> LevelSampler:
    """Distribution of noise levels in the training of base model `name`."""
    train, base = system.experiment.train, system.bases[name]
    total = common(base.schedules).num_timesteps
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


class FakeRows:
    """Latents that the base models generated, read from disk for each training step's batch.

    A step's fakes depend on the seed and the step alone, so neither the number of processes nor an
    interruption changes them.
    """

    def __init__(self, source: CacheSource, names: tuple[str, ...], train: Training, seed: int):
        """names: of the modalities. seed: of the experiment."""
        self.source, self._names, self._size = source, names, train.batch_size
        self._kind, self._parts = train.objective.fakes, train.num_microbatches
        self._key, self._draw = jax.random.key(seed + 1), jax.jit(jax.vmap(self._one))
        self._chunk, self._drawn = -1, {}

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        """This process's rows of the step's fakes: {"fake_audio": float16 [b ...], ...}."""
        count = self._size // jax.process_count()
        first = jax.process_index() * count
        return self.rows({m: i[first : first + count] for m, i in self.numbers(step).items()})

    def numbers(self, step: int) -> dict[str, np.ndarray]:
        """Numbers {m: [b]} of the fakes of a step, over all processes."""
        if step // _STEPS_AT_ONCE != self._chunk:
            self._chunk = step // _STEPS_AT_ONCE
            steps = np.arange(_STEPS_AT_ONCE, dtype=np.int32) + self._chunk * _STEPS_AT_ONCE
            self._drawn = jax.device_get(self._draw(steps))
        return {m: rows[step % _STEPS_AT_ONCE] for m, rows in self._drawn.items()}

    def rows(self, numbers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Fakes of these numbers {m: [b]}, and their texts where they have any."""
        records = {int(i): self.source[int(i)] for row in numbers.values() for i in row}
        known = set(next(iter(records.values())))
        return {
            FAKE + name: np.stack([records[int(i)][name] for i in row])
            for m, row in numbers.items()
            for name in (m, TEXT + m)
            if name in known
        }

    def _one(self, step: Array) -> dict[str, Array]:
        key, parts = jax.random.fold_in(self._key, step), self._parts

        def draw(key: Array) -> dict[str, Array]:
            count, number = self._size // parts, len(self.source)
            return fake_indices(key, self._names, count, number, self._kind)

        if parts == 1:
            return draw(key)
        keys = jax.vmap(lambda part: jax.random.fold_in(key, part))(jnp.arange(parts))
        # Microbatch j has the rows j, j + parts, ... of a batch, as `training.state` cuts it.
        return {m: i.T.reshape(-1) for m, i in jax.vmap(draw)(keys).items()}


def fakes(system: System) -> FakeRows:
    """Latents that the base models generated, for training a discriminator.

    Raises:
      ValueError: no folder is named, or the fakes are of other base models or noise schedules.
    """
    folder = system.experiment.weights.get("fakes", "")
    if not folder:
        raise ValueError(
            "training with generated fakes needs config.weights.fakes: run prepare with "
            "--config.fakes.num_samples=N, then give the folder it names."
        )
    wanted = {"weights": system.base_digests, "schedules": system.schedule_digests}
    cache = open_cache(folder, wanted)
    experiment = system.experiment
    return FakeRows(cache, system.modalities, experiment.train, experiment.seed)
