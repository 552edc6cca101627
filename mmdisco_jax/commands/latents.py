# SPDX-License-Identifier: Apache-2.0
"""Clips and captions encoded once, and kept: for codecs that cost more than reading latents."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mmdisco_jax import build
from mmdisco_jax.build import Config
from mmdisco_jax.inputs.cache import Arrays, write_cache
from mmdisco_jax.types import TEXT

_SHARD = 64


def embedded(read: Mapping[str, Any], captions: Sequence[str]) -> Arrays:
    """The captions as the text encoders `read` {modality: encoder} see them, float16 [n ...]."""
    return {TEXT + m: encoder(captions).astype(np.float16) for m, encoder in read.items()}


def write_latents(config: Config, split: str = "train") -> dict:
    """Writes the latents of a split's clips to `config.data.latents`; goes on where it stopped.

    Clips that are longer than the config's give their windows one after the other. Raises
    StaleCacheError if the folder holds latents of other clips or codecs.
    """
    source = build.fixed_clips(config, split)
    encode, read = build.compiled_encoders(config), build.texts(config)

    def make(first: int, last: int) -> Arrays:
        clips = [source[i] for i in range(first, last)]
        # A whole batch, so that one program serves all shards.
        clips += clips[-1:] * (_SHARD - len(clips))
        texts = embedded(read, [str(clip.get("caption", "")) for clip in clips])
        found = {m: np.asarray(f(np.stack([c[m] for c in clips]))) for m, f in encode.items()}
        return found | texts

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
