# SPDX-License-Identifier: Apache-2.0
"""Prompts of `sample`: checked, embedded and counted out to the samples."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mmdisco_jax.sections import Sampling
from mmdisco_jax.system import System
from mmdisco_jax.text.prompts import clean_prompts
from mmdisco_jax.types import AV


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompts:
    """Prompts and their embeddings; sample i is of prompt i // per_prompt.

    embeddings {modality: [n ...]} of `texts`, and no_text {modality: [1 ...]} of the negative one.
    """

    texts: tuple[str, ...]
    per_prompt: int
    embeddings: AV
    no_text: AV

    @property
    def num_samples(self) -> int:
        return len(self.texts) * self.per_prompt

    def numbers(self, indices: np.ndarray) -> np.ndarray:
        """Number of the prompt of each sample; beyond the last sample the last one."""
        return np.minimum(indices // self.per_prompt, len(self.texts) - 1)

    def rows(self, indices: np.ndarray) -> dict[str, Any]:
        """Embeddings [b ...] of the prompts of samples `indices` [b]."""
        mine = self.numbers(indices)
        return {m: x[mine] for m, x in self.embeddings.items()}


def repeated(no_text: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Embeddings [1 ...] of one text as those of a batch, [size ...]."""
    return {m: np.repeat(x, size, axis=0) for m, x in no_text.items()}


def prompt_of(sample: Sampling, number: int) -> str | None:
    """The prompt of a sample; None for models without text."""
    prompts = sample.prompts
    return prompts[min(number // sample.samples_per_prompt, len(prompts) - 1)] if prompts else None


def encode_prompts(system: System) -> Prompts | None:
    """Embeds the prompts by the text encoders, each text once; None for models without text.

    ValueError as of `check_prompts`.
    """
    texts = check_prompts(system)
    if texts is None:
        return None
    distinct = sorted(set(texts))
    encoded = jax.device_get({m: encode(distinct) for m, encode in system.text_encoders.items()})
    places = np.array([distinct.index(text) for text in texts])
    return Prompts(
        texts=tuple(texts[:-1]),
        per_prompt=system.experiment.sample.samples_per_prompt,
        embeddings={m: x[places[:-1]] for m, x in encoded.items()},
        no_text={m: x[places[-1:]] for m, x in encoded.items()},
    )


def check_prompts(system: System) -> list[str] | None:
    """The prompts, cleaned, and then the negative one; None for models without text.

    Raises:
      ValueError: prompts for models without text, or none for those with; a bad prompt.
    """
    sample = system.experiment.sample
    given, per_prompt = sample.prompts, sample.samples_per_prompt
    if not system.reads_text:
        if given:
            raise ValueError(
                f"{len(given)} prompts are given, but this config's models read no text: use a "
                "config such as vggsound_audioldm_animatediff."
            )
        return None
    if not given:
        raise ValueError('models that read text need prompts: --prompts="a dog barks", or a file.')
    if per_prompt < 1:
        raise ValueError(f"sample.samples_per_prompt must be at least 1, got {per_prompt}.")
    return clean_prompts([*given, sample.negative_prompt])
