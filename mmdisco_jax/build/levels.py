# SPDX-License-Identifier: Apache-2.0
"""Config sections to how a training draws its noise levels."""

from typing import Any

from mmdisco_jax.base_models.joint import JOINT
from mmdisco_jax.build.sections import Config, schedules
from mmdisco_jax.process.loss_aware_sampling import LossSecondMoment
from mmdisco_jax.process.noising import LevelSampler, TimeSampler

UNIFORM, LOSS_SECOND_MOMENT = TIME_SAMPLERS = ("uniform", "loss_second_moment")


def loss_memory(config: Config) -> Any:
    """What the loss of `training_task` remembers at first: arrays, or None for nothing."""
    return level_sampler(config).init() if config.train.target == JOINT else None


def level_sampler(config: Config) -> LevelSampler:
    """How a joint loss draws noise levels."""
    name = config.train.time_sampler
    levels = next(iter(schedules(config).values())).num_timesteps
    if name != LOSS_SECOND_MOMENT:
        return uniform_levels(config, levels)
    if config.train.time.focus:
        raise ValueError(
            f"train.time.focus={config.train.time.focus} is for uniform noise levels, but "
            f"train.time_sampler is {name!r}: set train.time.focus=0, or "
            "train.time_sampler='uniform'."
        )
    return LossSecondMoment(num_timesteps=levels)


def uniform_levels(config: Config, num_timesteps: int) -> TimeSampler:
    """Of losses that remember nothing; ValueError if the config asks for more."""
    name, target = config.train.time_sampler, config.train.target
    if name not in TIME_SAMPLERS:
        known = ", ".join(TIME_SAMPLERS)
        raise ValueError(f"unknown train.time_sampler {name!r}: choose one of {known}.")
    if name != UNIFORM:
        raise ValueError(
            f"train.time_sampler {name!r} needs the losses of a joint base model, but train.target "
            f"is {target!r}: set train.time_sampler='uniform'."
        )
    return TimeSampler(num_timesteps=num_timesteps, **config.train.time.to_dict())
