# SPDX-License-Identifier: Apache-2.0
"""Clips encoded once, and kept: for codecs that cost more than reading their latents."""

import jax
import numpy as np

from mmdisco_jax import build
from mmdisco_jax.build import Config
from mmdisco_jax.inputs.cache import Arrays, write_cache

_SHARD = 64


def write_latents(config: Config, split: str = "train") -> dict:
    """Writes the latents of a split's clips to `config.data.latents`; goes on where it stopped.

    Clips that are longer than the config's give their windows one after the other. Raises
    StaleCacheError if the folder holds latents of other clips or codecs.
    """
    source = build.fixed_clips(config, split)
    encode = {m: jax.jit(codec.encode) for m, codec in build.codecs(config).items()}

    def make(first: int, last: int) -> Arrays:
        clips = [source[i] for i in range(first, last)]
        # A whole batch, so that one program serves all shards.
        clips += clips[-1:] * (_SHARD - len(clips))
        return {m: np.asarray(f(np.stack([c[m] for c in clips]))) for m, f in encode.items()}

    write_cache(
        config.data.latents,
        build.latents_key(config, build.clips(config, split).directory) | {"split": split},
        len(source),
        make,
        shard_size=_SHARD,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        desc="latents",
    )
    return {"directory": config.data.latents, "examples": len(source)}
