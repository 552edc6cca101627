# SPDX-License-Identifier: Apache-2.0
"""Latent cache: clips and captions encoded once, for codecs that cost more than reading."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmdisco_jax.inputs.cache import Arrays, open_cache, write_cache
from mmdisco_jax.inputs.transforms import FLIPS
from mmdisco_jax.system import System
from mmdisco_jax.types import TEXT

_SHARD = 64


def latents_key(system: System, directory: Path) -> dict[str, Any]:
    """JSON of what decides the latents of the clips that are prepared in `directory`."""
    experiment = system.experiment
    key = {
        "clips": directory.parent.name,
        "codecs": {name: base.provenance() for name, base in system.bases.items()},
        "clip": dataclasses.asdict(experiment.clip),
    }
    return json.loads(json.dumps(key))


def training_examples(system: System) -> Any:
    """Source that training reads: clips, or their latents if `data.latents` names a cache.

    Raises:
      ValueError: flips of cached latents, which cannot be mirrored.
      StaleCacheError: latents of other clips or codecs.
    """
    data = system.experiment.data
    source = system.source("train", in_memory=data.in_memory and not data.latents)
    if not data.latents:
        return source
    if data.flip != "off":
        raise ValueError(
            f"config.data.flip is {data.flip!r}, but cached latents cannot be mirrored: set "
            "config.data.flip=off, or config.data.latents=''."
        )
    return open_cache(data.latents, latents_key(system, source.directory))


def flip_probability(flip: str) -> float:
    """Probability that `data.flip` names; ValueError for an unknown name."""
    if flip not in FLIPS:
        raise ValueError(f"config.data.flip is {flip!r}: choose one of {', '.join(FLIPS)}.")
    return FLIPS[flip]


def embedded(read: Mapping[str, Any], captions: Sequence[str]) -> Arrays:
    """The captions as the text encoders `read` {modality: encoder} see them, float16 [n ...]."""
    return {TEXT + m: encoder(captions).astype(np.float16) for m, encoder in read.items()}


def write_latents(system: System, split: str = "train") -> dict:
    """Writes the latents of a split's clips to `data.latents`; resumes where it stopped.

    Clips that are longer than the config's give their windows one after the other. Raises
    StaleCacheError if the folder holds latents of other clips or codecs.
    """
    source, folder = system.clips(split), system.experiment.data.latents
    encode, read = system.encoders, system.text_encoders

    def make(first: int, last: int) -> Arrays:
        clips = [source[i] for i in range(first, last)]
        # A whole batch, so that one program serves all shards.
        clips += clips[-1:] * (_SHARD - len(clips))
        texts = embedded(read, [str(clip.get("caption", "")) for clip in clips])
        found = {m: np.asarray(f(np.stack([c[m] for c in clips]))) for m, f in encode.items()}
        return found | texts

    write_cache(
        folder,
        latents_key(system, system.source(split).directory) | {"split": split},
        len(source),
        make,
        shard_size=_SHARD,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        desc="latents",
    )
    return {"directory": folder, "examples": len(source)}
