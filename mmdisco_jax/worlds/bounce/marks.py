# SPDX-License-Identifier: Apache-2.0
"""Gallery marks of bounce clips: impacts seen, onsets heard, their timing F1, colours."""

from typing import Any

import numpy as np

from mmdisco_jax.matching import match_times
from mmdisco_jax.worlds.bounce import measures, physics

NO_CLASS = "none"


def bounce_marks(video: np.ndarray, audio: np.ndarray) -> dict[str, Any]:
    """Marks of one bounce clip by the calibrated detectors.

    Args:
      video: uint8 [16 32 32 3].
      audio: int16 or float [32000].

    Returns:
      Fields of `export.gallery_page.GalleryClip`: times in seconds, scores, and the colours of the
      ball seen and of the pitch heard where there is one.
    """
    seen = measures.detect(video, audio)
    impacts, onsets = tuple(seen.impacts.tolist()), tuple(seen.onsets.tolist())
    hits = len(match_times(impacts, onsets, measures.TOLERANCES["half_frame"]))
    total = len(impacts) + len(onsets)
    names = (*physics.COLOUR_NAMES, NO_CLASS)  # class -1 is the last
    marks: dict[str, Any] = {
        "impact_seconds": impacts,
        "onset_seconds": onsets,
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
