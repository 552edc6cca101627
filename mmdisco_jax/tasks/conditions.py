# SPDX-License-Identifier: Apache-2.0
"""Media files on which `sample` is conditioned: one modality given, the other sampled."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mmdisco_jax.media.conditions import read_conditions
from mmdisco_jax.sections import Condition
from mmdisco_jax.system import System


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


def read_each_given(system: System, variants: Sequence[str]) -> dict[str, Given | None]:
    """`read_given` of each variant; what several share is read once."""
    known: dict[Condition, Given | None] = {}
    given = {}
    for variant in variants:
        key = dataclasses.replace(system.experiment.variant(variant).condition, weight=0.0)
        if key not in known:
            known[key] = read_given(system, key)
        given[variant] = known[key]
    return given


def read_given(system: System, settings: Condition) -> Given | None:
    """Clips and latents of the media that a condition names; None for no condition.

    ValueError, from `read_conditions` too, for media or settings that do not fit.
    """
    if bool(settings.given) != bool(settings.media):
        raise ValueError(
            f"sample.condition has given={settings.given!r} and media={settings.media!r}: set both "
            "(a modality, and a file or folder), or none."
        )
    if not settings.given:
        return None
    shapes = system.shapes
    found = read_conditions(
        settings.media,
        settings.given,
        system.clip_spec,
        on_short=settings.on_short,
        on_odd_rate=settings.on_odd_rate,
    )
    clips = np.stack([getattr(clip.window, settings.given) for clip in found])
    latents = np.asarray(system.encoders[settings.given](clips))
    if latents.shape[1:] != shapes[settings.given]:
        raise ValueError(
            f"the {settings.given} of a condition becomes an array {latents.shape[1:]}, but the "
            f"models' samples are {shapes[settings.given]}: config.clip and the codecs of "
            "config.bases must make what the models expect."
        )
    files = tuple((clip.name, clip.sha256) for clip in found)
    return Given(modality=settings.given, files=files, clips=clips, latents=latents)
