# SPDX-License-Identifier: Apache-2.0
"""The prompts that `sample` is given, and what they become."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mmdisco_jax import build
from mmdisco_jax.build import Config
from mmdisco_jax.text.prompts import clean_prompts
from mmdisco_jax.types import AV


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompts:
    """texts: of each prompt; sample i is of prompt i // per_prompt.

    embeddings {modality: [n ...]} of them, and no_text {modality: [1 ...]} of the negative prompt.
    """

    texts: tuple[str, ...]
    per_prompt: int
    embeddings: AV
    no_text: AV

    @property
    def num_samples(self) -> int:
        return len(self.texts) * self.per_prompt

    def numbers(self, indices: np.ndarray) -> np.ndarray:
        """Which prompt each sample is of; beyond the last sample the last one."""
        return np.minimum(indices // self.per_prompt, len(self.texts) - 1)

    def rows(self, indices: np.ndarray) -> dict[str, Any]:
        """The conditions of samples `indices` [b], as `build.sampler`'s programs take them."""
        mine = self.numbers(indices)
        return conditions({m: x[mine] for m, x in self.embeddings.items()}, self.no_text)


def conditions(text: Mapping[str, Any], no_text: Mapping[str, Any]) -> dict[str, Any]:
    """Conditions of `build.sampler`'s programs: texts [b ...], and one text [1 ...] for none."""
    many = {m: np.repeat(no_text[m], len(x), axis=0) for m, x in text.items()}
    return {"text": text, "no_text": many}


def prompt_of(config: Config, number: int) -> str:
    """The prompt of a sample; "" for models without text."""
    prompts = config.sample.prompts
    return (
        prompts[min(number // config.sample.samples_per_prompt, len(prompts) - 1)]
        if prompts
        else ""
    )


def encode_prompts(config: Config) -> Prompts | None:
    """The config's prompts by its text encoders, each text once; None for models without text.

    ValueError as of `check_prompts`.
    """
    texts = check_prompts(config)
    if texts is None:
        return None
    distinct = sorted(set(texts))
    encoded = jax.device_get({m: encode(distinct) for m, encode in build.texts(config).items()})
    places = np.array([distinct.index(text) for text in texts])
    return Prompts(
        texts=tuple(texts[:-1]),
        per_prompt=config.sample.samples_per_prompt,
        embeddings={m: x[places[:-1]] for m, x in encoded.items()},
        no_text={m: x[places[-1:]] for m, x in encoded.items()},
    )


def check_prompts(config: Config) -> list[str] | None:
    """The config's prompts, cleaned, and then its negative one; None for models without text.

    Raises:
      ValueError: prompts for models without text, or none for those with; a bad prompt.
    """
    given, per_prompt = tuple(config.sample.prompts), config.sample.samples_per_prompt
    if not config.texts:
        if given:
            raise ValueError(
                f"{len(given)} prompts are given, but this config's models read no text "
                "(config.texts is empty): use a config such as vggsound_audioldm_animatediff."
            )
        return None
    if not given:
        raise ValueError('models that read text need prompts: --prompts="a dog barks", or a file.')
    if per_prompt < 1:
        raise ValueError(f"sample.samples_per_prompt must be at least 1, got {per_prompt}.")
    return clean_prompts([*given, config.sample.negative_prompt])
