# SPDX-License-Identifier: Apache-2.0
"""The media that `sample` is given one modality by."""

import dataclasses
import json
from collections.abc import Sequence

import jax
import numpy as np

from mmdisco_jax import build
from mmdisco_jax.build import Config
from mmdisco_jax.media.conditions import read_conditions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Given:
    """Conditions [n]: of `modality` the clips (uint8 or int16) and their latents; sample i takes
    number i modulo n. `files`: (name, SHA-256) of each.
    """

    modality: str
    files: tuple[tuple[str, str], ...]
    clips: np.ndarray
    latents: np.ndarray

    def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The latents of samples `indices` [b]."""
        return {self.modality: self.latents[indices % len(self.files)]}

    def put(self, clips: dict[str, np.ndarray], indices: np.ndarray) -> dict[str, np.ndarray]:
        """Sampled clips, with the given modality as it was given."""
        return clips | {self.modality: self.clips[indices % len(self.files)]}


def read_each_given(config: Config, variants: Sequence[str]) -> dict[str, Given | None]:
    """`read_given` of each variant; what several share is read once."""
    known: dict[str, Given | None] = {}
    given = {}
    for variant in variants:
        condition = build.variant_settings(config, variant).condition.to_dict()
        del condition["weight"]
        key = json.dumps(condition, sort_keys=True)
        if key not in known:
            known[key] = read_given(config, variant)
        given[variant] = known[key]
    return given


def read_given(config: Config, variant: str) -> Given | None:
    """What the variant's `condition` names, converted to the model's clips; None for nothing.

    ValueError, from `read_conditions` too, for media or settings that do not fit.
    """
    settings = build.variant_settings(config, variant).condition
    if bool(settings.given) != bool(settings.media):
        raise ValueError(
            f"sample.condition has given={settings.given!r} and media={settings.media!r}: set both "
            "(a modality, and a file or folder), or none."
        )
    if not settings.given:
        return None
    codecs, shapes = build.codecs(config), build.sample_shapes(config)
    found = read_conditions(
        settings.media,
        settings.given,
        build.clip_spec(config),
        on_short=settings.on_short,
        on_odd_rate=settings.on_odd_rate,
    )
    clips = np.stack([getattr(clip.window, settings.given) for clip in found])
    latents = np.asarray(jax.jit(codecs[settings.given].encode)(clips))
    if latents.shape[1:] != shapes[settings.given]:
        raise ValueError(
            f"the {settings.given} of a condition becomes an array {latents.shape[1:]}, but the "
            f"models' samples are {shapes[settings.given]}: config.clip and config.codecs must "
            "make what config.bases expects."
        )
    files = tuple((clip.name, clip.sha256) for clip in found)
    return Given(modality=settings.given, files=files, clips=clips, latents=latents)
