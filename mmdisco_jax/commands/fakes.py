# SPDX-License-Identifier: Apache-2.0
"""Fakes of the base models: unguided samples as latents, in a cache, for training a discriminator.

Of two base models the modalities of a sample are independent by construction, and training pairs
any sound with any picture, so n samples give n^2 fake pairs; those of a joint model stay together,
and so do those that are made from one caption.
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmdisco_jax import build
from mmdisco_jax.build import Config
from mmdisco_jax.commands.latents import embedded
from mmdisco_jax.commands.prompts import conditions
from mmdisco_jax.inputs.cache import Arrays, write_cache
from mmdisco_jax.types import TEXT


def write_fakes(config: Config, workdir: Path) -> dict:
    """Writes `config.fakes.num_samples` latents under workdir/fakes; goes on where it stopped.

    Processes share the shards among them, in a common workdir. Raises StaleCacheError if the folder
    holds fakes of other base models or settings.
    """
    folder = workdir / "fakes"
    run = build.sampler(config, config.fakes.variant)
    _, params = build.bases(config)
    size, total = config.fakes.batch_size, config.fakes.num_samples
    told = _Told(config) if config.texts else None

    def make(first: int, last: int) -> Arrays:
        del last  # a whole batch, so that one program serves all shards
        texts = told.texts(first, size) if told else {}
        told_texts = (told.conditions(texts),) if told else ()
        indices = config.fakes.first_index + jnp.arange(first, first + size)
        latents = run(params, None, indices, *told_texts)
        return {m: np.asarray(x, np.float16) for m, x in latents.items()} | texts

    write_cache(
        folder,
        _made_by(config),
        total,
        make,
        shard_size=size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        desc="fakes",
    )
    return {"directory": str(folder), "samples": total}


class _Told:
    """The captions that fakes are made from: the training clips', shuffled, over and over.

    Shuffled, for the clips of one video follow each other, and a fake's caption must not depend on
    how many there will be.
    """

    def __init__(self, config: Config):
        self._read, self._source = build.texts(config), build.clips(config, "train")
        self._no_text = embedded(self._read, [config.sample.negative_prompt])
        self._order = np.random.default_rng(0).permutation(len(self._source))

    def texts(self, first: int, size: int) -> Arrays:
        numbers = self._order[np.arange(first, first + size) % len(self._order)]
        captions = [str(self._source[int(i)].get("caption", "")) for i in numbers]
        return embedded(self._read, captions)

    def conditions(self, texts: Arrays) -> dict[str, Any]:
        """As `build.sampler`'s programs take them, float32."""
        text, none = (
            {name.removeprefix(TEXT): x.astype(np.float32) for name, x in some.items()}
            for some in (texts, self._no_text)
        )
        return conditions(text, none)


def _made_by(config: Config) -> dict:
    settings = json.loads(
        build.variant_settings(config, config.fakes.variant).to_json_best_effort()
    )
    # How many, how they are shown and what is allowed does not decide what they are.
    for name in ("num_samples", "num_media", "force_schedule"):
        settings.pop(name)
    made_by = {
        "weights": build.base_digests(config),
        "first_index": config.fakes.first_index,
        "sample": settings,
    }
    if config.texts:
        made_by["captions"] = build.clips(config, "train").directory.parent.name
    return made_by
