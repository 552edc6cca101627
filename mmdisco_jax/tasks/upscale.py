# SPDX-License-Identifier: Apache-2.0
"""Super-resolution as the last stage of `sample`: clips enlarged by the config's network."""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import NamedSharding
from tqdm import tqdm

from mmdisco_jax import build, parallel
from mmdisco_jax.build import Config

# (clips uint8 [n f h w 3], their sample indices [n]) -> clips uint8
Enlarge = Callable[[np.ndarray, np.ndarray], np.ndarray]


def upscale_clips(config: Config, video: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Clips uint8 [n f h w 3], enlarged to [n f H W 3] as config.super_resolution says.

    A clip's noise follows from config.sample.seed and its index. For many calls `enlarger` reads
    the weights and compiles once.
    """
    return enlarger(config)(video, indices)


def enlarger(config: Config) -> Enlarge:
    """`upscale_clips` of a config; where its super_resolution is empty, clips stay as they are.

    Pictures are cut over the devices of this process, if their number divides frames_per_batch.

    Raises:
      FileNotFoundError: no weights.
      ValueError: weights of another network, or samples of another size than it takes.
    """
    if not config.super_resolution:
        return lambda video, indices: video
    devices = jax.local_devices()
    mesh = parallel.make_mesh({"data": -1, "fsdp": 1}, devices=devices)
    whole = parallel.replicated(mesh)
    even = config.super_resolution.frames_per_batch % len(devices) == 0
    upscaler, denoiser = build.super_resolution(
        config, NamedSharding(mesh, parallel.BATCH) if even else whole
    )
    denoise = denoiser(jax.device_put(build.super_resolution_params(config), whole))

    def enlarge(video: np.ndarray, indices: np.ndarray) -> np.ndarray:
        steps = upscaler.num_steps(video.shape[0] * video.shape[1])
        with tqdm(total=steps, desc="super-resolution", unit="step", leave=False) as bar:
            return upscaler(denoise, video, indices, on_steps=bar.update)

    return enlarge
