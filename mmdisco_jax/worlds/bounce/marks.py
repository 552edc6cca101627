# SPDX-License-Identifier: Apache-2.0
"""Marks of a bounce clip for the gallery: detected impacts, onsets, colours and scores."""

from typing import Any

import numpy as np

from mmdisco_jax.metrics.matching import match
from mmdisco_jax.worlds.bounce import measures, physics

_NO_CLASS = "none"


def bounce_marks(video: np.ndarray, audio: np.ndarray) -> dict[str, Any]:
    """Fields of a `GalleryClip` from one clip, video uint8 [f h w 3] and audio int16 [samples]."""
    seen = measures.detect(video, audio)
    hits = len(match(seen.impacts, seen.onsets, measures.TOLERANCES["half_frame"]))
    total = len(seen.impacts) + len(seen.onsets)
    names = (*physics.COLOUR_NAMES, _NO_CLASS)
    marks = {
        "impact_seconds": tuple(seen.impacts.tolist()),
        "onset_seconds": tuple(seen.onsets.tolist()),
        "scores": {
            "timing F1": 2 * hits / total if total else 0.0,
            "colour seen": names[seen.colour],
            "colour heard": names[seen.pitch],
        },
    }
    if seen.colour >= 0:
        marks["impact_colour"] = _hex(seen.colour)
    if seen.pitch >= 0:
        marks["onset_colour"] = _hex(seen.pitch)
    return marks


def _hex(colour: int) -> str:
    return "#" + "".join(f"{int(c):02x}" for c in physics.COLOURS[colour])
