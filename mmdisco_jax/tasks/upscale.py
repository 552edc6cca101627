# SPDX-License-Identifier: Apache-2.0
"""Super-resolution as the last stage of `sample`: clips enlarged by the experiment's network."""

from collections.abc import Callable

import jax
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding
from jax.tree_util import Partial
from tqdm import tqdm

from mmdisco_jax import parallel
from mmdisco_jax.base_models.api import made
from mmdisco_jax.base_models.super_resolution import SuperResolutionBase
from mmdisco_jax.losses import require_super_resolution
from mmdisco_jax.samplers import SAMPLERS
from mmdisco_jax.samplers.levels import respaced_levels
from mmdisco_jax.samplers.sampler import Sampler
from mmdisco_jax.samplers.upscaling import PICTURE, Upscaler
from mmdisco_jax.system import System
from mmdisco_jax.types import AV, Array, Cond, DenoiseFn, Params

# (clips uint8 [n f h w 3], their sample indices [n]) -> clips uint8
Enlarge = Callable[[np.ndarray, np.ndarray], np.ndarray]


def upscaler_of(system: System, sharding: NamedSharding | None = None) -> Upscaler:
    """Upscaler of the experiment's super-resolution; `sharding` is that of a batch of pictures.

    A clip is a function of (sample.seed, its index) and its frames.

    Raises:
      ValueError: the experiment's samples are not of the size that it takes.
    """
    model = require_super_resolution(system)
    levels = respaced_levels(model.schedule.num_timesteps, model.respacing)
    stepper = made(SAMPLERS, model.sampler)
    upscaler = Upscaler(
        sampler=Sampler({PICTURE: stepper}, {PICTURE: model.schedule}, levels),
        low_size=model.low_size,
        high_size=model.high_size,
        frames_per_batch=model.frames_per_batch,
        seed=system.experiment.sample.seed,
        sharding=sharding,
    )
    shapes = {m: s for base in system.bases.values() for m, s in base.decoded_shapes().items()}
    upscaler.check_size(*shapes["video"][1:3])
    return upscaler


def picture_denoiser(model: SuperResolutionBase, params: Params) -> DenoiseFn:
    """Noise predictor of pictures with these parameters, a callable pytree."""
    graphdef, _ = model.definition()

    def denoise(params: Params, x: AV, t: Array, cond: Cond) -> AV:
        return model.denoise(nnx.merge(graphdef, params), PICTURE)(x, t, cond)

    return Partial(denoise, params)


def upscale_clips(system: System, video: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Enlarges clips uint8 [n f h w 3] to [n f H W 3]; for many calls see `enlarger`."""
    return enlarger(system)(video, indices)


def enlarger(system: System) -> Enlarge:
    """`upscale_clips` of an experiment; without super-resolution, clips stay as they are.

    Pictures are cut over the devices of this process, if their number divides frames_per_batch.

    Raises:
      FileNotFoundError: no weights.
      ValueError: weights of another network, or samples of another size than it takes.
    """
    model = system.experiment.super_resolution
    if model is None:
        return lambda video, indices: video
    devices = jax.local_devices()
    mesh = parallel.make_mesh({"data": -1, "fsdp": 1}, devices=devices)
    whole = parallel.replicated(mesh)
    even = model.frames_per_batch % len(devices) == 0
    upscaler = upscaler_of(system, NamedSharding(mesh, parallel.BATCH) if even else whole)
    denoise = picture_denoiser(model, jax.device_put(model.load(), whole))

    def enlarge(video: np.ndarray, indices: np.ndarray) -> np.ndarray:
        steps = upscaler.num_steps(video.shape[0] * video.shape[1])
        with tqdm(total=steps, desc="super-resolution", unit="step", leave=False) as bar:
            return upscaler(denoise, video, indices, on_steps=bar.update)

    return enlarge
