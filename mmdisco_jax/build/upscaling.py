# SPDX-License-Identifier: Apache-2.0
"""The config's section `super_resolution` to what trains it, and to what enlarges samples."""

import functools
import json
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax.tree_util import Partial

from mmdisco_jax.base_models.image_unet import ImageUNetSpec
from mmdisco_jax.base_models.losses import noise_prediction
from mmdisco_jax.base_models.super_resolution import (
    SuperResolution,
    frame_denoiser,
    noise_half,
    picture_loss,
)
from mmdisco_jax.build.codecs import decoded_shape
from mmdisco_jax.build.models import sample_shapes
from mmdisco_jax.build.sections import Config, named
from mmdisco_jax.inputs.degradations import DegradationSpec, DrawnPairs
from mmdisco_jax.nn.keys import definition
from mmdisco_jax.process import SCHEDULES
from mmdisco_jax.process.noising import TimeSampler
from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.samplers import SAMPLERS
from mmdisco_jax.samplers.levels import respaced_levels
from mmdisco_jax.samplers.sampler import Sampler
from mmdisco_jax.samplers.upscaling import PICTURE, Upscaler
from mmdisco_jax.training.state import LossFn
from mmdisco_jax.training.weights import load_weights, read_metadata
from mmdisco_jax.types import AV, Array, Cond

# The training target.
SUPER_RESOLUTION = "super_resolution"
_CHANNELS = 3
# Keys that weights are trained for; any other value makes another network of the same shapes.
_TRAINED_FOR = ("low_size", "high_size", "base", "schedule", "prediction")


def super_resolution_pairs(config: Config) -> DrawnPairs | None:
    """What turns clips into training pairs, if super-resolution is what is trained."""
    if config.train.target != SUPER_RESOLUTION:
        return None
    if config.data.latents:
        raise ValueError(
            "super-resolution is trained on frames, not on latents: set config.data.latents=''."
        )
    section = _section(config)
    pairs = section.pairs.to_dict()
    count = pairs.pop("frames_per_clip")
    sizes = {"high_size": section.high_size, "low_size": section.low_size}
    return DrawnPairs(spec=DegradationSpec(**sizes, **pairs), frames_per_clip=count)


def super_resolution_model(config: Config) -> tuple[nnx.GraphDef, Any]:
    """The graph definition of the network, and a function key -> its random parameters."""
    section = _section(config)
    spec = ImageUNetSpec(**section.base.to_dict())
    if spec.in_channels != 2 * _CHANNELS or spec.out_channels not in (_CHANNELS, 2 * _CHANNELS):
        raise ValueError(
            f"config.super_resolution.base has {spec.in_channels} channels in and "
            f"{spec.out_channels} out, but must have 6 in (noisy and small picture) and 3 out, or "
            "6 with a learned variance."
        )

    return definition(SuperResolution, spec)


def super_resolution_loss(
    config: Config, criterion: Callable[..., Any] | None = None
) -> tuple[LossFn, Any]:
    """The loss over batches of pairs {"high": [b n H W 3], "low": [b n h w 3]}, and initialiser.

    `criterion` as `picture_loss` takes it; by default the error of the noise.
    """
    graphdef, init = super_resolution_model(config)
    schedule, prediction = _process(config)
    sampler = TimeSampler(num_timesteps=schedule.num_timesteps, **config.train.time.to_dict())
    max_weight = config.train.max_weight

    def noise_error(predict: Any, high: jax.Array, key: jax.Array) -> Any:
        eps_fn = noise_half(predict, schedule, prediction)
        return noise_prediction(eps_fn, high, key, schedule, sampler, max_weight=max_weight)

    def loss_fn(params, frozen, batch, key, step):
        del frozen, step
        model = nnx.merge(graphdef, params)
        high, low = (batch[name].reshape(-1, *batch[name].shape[2:]) for name in ("high", "low"))
        return picture_loss(model, high, low, key, criterion or noise_error)

    return loss_fn, init


def super_resolution(config: Config, sharding: Any = None) -> tuple[Upscaler, Any]:
    """Upscaler of clips [b f h w 3], and a function from parameters to its denoiser.

    A clip is a function of (config.sample.seed, its index) and its frames. `sharding` is that of a
    batch of pictures.

    Raises:
      ValueError: the config's samples are not of the size that its super-resolution takes.
    """
    section = _section(config)
    graphdef, _ = super_resolution_model(config)
    schedule, prediction = _process(config)
    stepper = named(section.sampler, SAMPLERS)
    levels = respaced_levels(schedule.num_timesteps, section.respacing)

    def denoise(params: Any, x: AV, t: Array, cond: Cond) -> AV:
        model = nnx.merge(graphdef, params)

        def eps(x_t: Array, t: Array, low: Array) -> Array:
            return noise_half(lambda *args: model(*args, low), schedule, prediction)(x_t, t)

        return frame_denoiser(eps, PICTURE)(x, t, cond)

    upscaler = Upscaler(
        sampler=Sampler({PICTURE: stepper}, {PICTURE: schedule}, levels),
        low_size=section.low_size,
        high_size=section.high_size,
        frames_per_batch=section.frames_per_batch,
        seed=config.sample.seed,
        sharding=sharding,
    )
    upscaler.check_size(*decoded_shape(config, "video", sample_shapes(config)["video"])[1:3])
    return upscaler, functools.partial(Partial, denoise)


def super_resolution_params(config: Config) -> Any:
    """The weights of `config.super_resolution`.

    Raises:
      ValueError: their shapes are not the network's, or they were trained for other settings.
    """
    section = _section(config)
    _, init = super_resolution_model(config)
    params = load_weights(section.weights, jax.eval_shape(init, jax.random.key(0)))
    trained = json.loads(read_metadata(section.weights).get("config", "{}"))
    trained = trained.get("super_resolution", {})
    mine = json.loads(section.to_json_best_effort())
    for name in _TRAINED_FOR:
        if name in trained and _without_dropout(trained[name]) != _without_dropout(mine[name]):
            raise ValueError(
                f"{section.weights} was trained with super_resolution.{name} = {trained[name]}, "
                f"but the config has {mine[name]}: give other weights, or set it back."
            )
    return params


def _section(config: Config) -> Config:
    if not config.super_resolution:
        raise ValueError(
            "config.super_resolution is empty: use a config that sets it, such as "
            "configs/super_resolution.py."
        )
    return config.super_resolution


def _process(config: Config) -> tuple[Schedule, str]:
    """The noise schedule, and what the network predicts."""
    section = _section(config)
    return named(section.schedule, SCHEDULES), section.prediction


def _without_dropout(value: Any) -> Any:
    """A setting without what matters in training alone."""
    return {k: v for k, v in value.items() if k != "dropout"} if isinstance(value, dict) else value
