# SPDX-License-Identifier: Apache-2.0
"""Config sections to objects: the only reader of a ConfigDict, and the wiring diagram of the product."""

from pathlib import Path
from typing import Any

import jax
from flax import nnx
from ml_collections import ConfigDict

from mmdisco_jax.base_models import BASE_MODELS
from mmdisco_jax.base_models.losses import noise_prediction
from mmdisco_jax.codecs import CODECS
from mmdisco_jax.process import SCHEDULES
from mmdisco_jax.process.noising import TimeSampler
from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.training.loop import LoopSpec
from mmdisco_jax.training.optimizer import adam
from mmdisco_jax.training.state import LossFn


def _named(section: ConfigDict, registry: Any, *args: Any, **extra: Any) -> Any:
    """The registry's entry `section.name`, called with the rest of the section."""
    fields = section.to_dict()
    maker = registry.get(fields.pop("name"))
    try:
        return maker(*args, **fields, **extra)
    except TypeError as error:
        raise ValueError(f"config of {registry.kind} {section.name!r}: {error}.") from error


def schedules(config: ConfigDict) -> dict[str, Schedule]:
    return {m: _named(section, SCHEDULES) for m, section in config.schedules.items()}


def codecs(config: ConfigDict) -> dict[str, Any]:
    return {m: _named(section, CODECS) for m, section in config.codecs.items()}


def base_model(config: ConfigDict, modality: str) -> tuple[nnx.GraphDef, Any]:
    """The graph definition of one base model, and a function key -> its random parameters."""
    schedule = schedules(config)[modality]

    def make(key: jax.Array) -> nnx.Module:
        return _named(config.bases[modality], BASE_MODELS, schedule, rngs=nnx.Rngs(key))

    def init(key: jax.Array) -> nnx.State:
        return nnx.split(make(key))[1]

    graphdef, _ = nnx.split(nnx.eval_shape(lambda: make(jax.random.key(0))))
    return graphdef, jax.jit(init)


def base_loss(config: ConfigDict, modality: str) -> tuple[LossFn, Any]:
    """The loss of one base model over raw batches, and its initialiser."""
    graphdef, init = base_model(config, modality)
    schedule, codec = schedules(config)[modality], codecs(config)[modality]
    sampler = TimeSampler(num_timesteps=schedule.num_timesteps, **config.train.time.to_dict())
    max_weight = config.train.max_weight

    def loss_fn(params, frozen, batch, key, step):
        del frozen, step
        model = nnx.merge(graphdef, params)
        x0 = codec.encode(batch[modality])
        return noise_prediction(model, x0, key, schedule, sampler, max_weight=max_weight)

    return loss_fn, init


def optimizer(config: ConfigDict) -> Any:
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


def loop(config: ConfigDict) -> LoopSpec:
    train = config.train
    return LoopSpec(
        num_steps=train.num_steps, log_every=train.log_every, save_every=train.save_every
    )


def data_dir(config: ConfigDict) -> Path:
    return Path(config.data.dir)


