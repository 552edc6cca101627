# SPDX-License-Identifier: Apache-2.0
"""Generated fakes: unguided samples of the base models as latents, to train a discriminator on.

Of two base models the modalities of a sample are independent by construction, and training pairs
any sound with any picture, so n samples give n^2 fake pairs; those of a joint model stay together,
and so do those that are made from one caption.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmdisco_jax.inputs.cache import Arrays, write_cache
from mmdisco_jax.system import System
from mmdisco_jax.tasks.latents import embedded
from mmdisco_jax.tasks.prompts import repeated
from mmdisco_jax.types import TEXT


def write_fakes(system: System, workdir: Path) -> dict:
    """Writes `fakes.num_samples` latents under workdir/fakes; resumes where it stopped.

    Processes share the shards among them, in a common workdir. Raises StaleCacheError if the folder
    holds fakes of other base models or settings.
    """
    folder, fakes = workdir / "fakes", system.experiment.fakes
    settings = system.experiment.variant(fakes.variant)
    sampler = system.sampler(fakes.variant)
    captions = _Captions(system) if system.reads_text else None
    no_text = captions.no_text(fakes.batch_size) if captions else None
    denoise = system.guided(settings, system.base_params, None, no_text)
    size, total = fakes.batch_size, fakes.num_samples

    def make(first: int, last: int) -> Arrays:
        del last  # a whole batch, so that one program serves all shards
        texts = captions.texts(first, size) if captions else {}
        latents = sampler.run(
            denoise,
            system.shapes,
            seed=settings.seed,
            indices=fakes.first_index + np.arange(first, first + size),
            cond=_wide(texts) if captions else None,
        )
        return {m: np.asarray(x, np.float16) for m, x in latents.items()} | texts

    write_cache(
        folder,
        _made_by(system),
        total,
        make,
        shard_size=size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        desc="fakes",
    )
    return {"directory": str(folder), "samples": total}


class _Captions:
    """Captions of fakes: those of the training clips, shuffled, again and again.

    Shuffled, for the clips of one video follow each other, and a fake's caption must not depend on
    how many there will be.
    """

    def __init__(self, system: System):
        self._read, self._source = system.text_encoders, system.source("train")
        self._negative = system.experiment.sample.negative_prompt
        self._order = np.random.default_rng(0).permutation(len(self._source))

    def texts(self, first: int, size: int) -> Arrays:
        numbers = self._order[np.arange(first, first + size) % len(self._order)]
        captions = [str(self._source[int(i)].get("caption", "")) for i in numbers]
        return embedded(self._read, captions)

    def no_text(self, size: int) -> dict[str, Any]:
        """Embeddings of the negative prompt, float32 [size ...] of each modality."""
        return repeated(_wide(embedded(self._read, [self._negative])), size)


def _wide(texts: Arrays) -> dict[str, Any]:
    """Embeddings by modality, float32, from the arrays of a cache."""
    return {name.removeprefix(TEXT): x.astype(np.float32) for name, x in texts.items()}


def _made_by(system: System) -> dict:
    fakes = system.experiment.fakes
    settings = dict(system.experiment.variant_records[fakes.variant])
    # How many, how they are shown and what is allowed does not decide what they are.
    for name in ("num_samples", "num_media", "force_schedule"):
        settings.pop(name)
    made_by = {
        "weights": system.base_digests,
        "first_index": fakes.first_index,
        "sample": settings,
    }
    if system.reads_text:
        made_by["captions"] = system.source("train").directory.parent.name
    return made_by
