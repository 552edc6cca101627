# SPDX-License-Identifier: Apache-2.0
"""Transforms of one example, in numpy, as grain transforms."""

import dataclasses
from typing import Any

import grain
import numpy as np

from mmdisco_jax.types import TEXT

Example = dict[str, np.ndarray]


# Chance of a mirrored clip by name. "official": MM-Diffusion's code means one half, and mirrors
# every training clip (and none that it measures).
FLIPS = {"off": 0.0, "half": 0.5, "official": 1.0}


def pair_only(example: dict) -> Example:
    """Keeps `video`, `audio` and their embedded texts; truth and file names do not reach the
    device."""
    texts = {k: x for k, x in example.items() if k.startswith(TEXT)}
    return {"video": example["video"], "audio": example["audio"], **texts}


@dataclasses.dataclass(frozen=True, kw_only=True)
class HorizontalFlip(grain.transforms.RandomMap):
    """Mirrors the whole clip left to right with `probability` in [0, 1]; mono sound stays.

    The coin is a function of (seed, position in the stream) alone, so a resumed run tosses the
    same ones. One coin a clip, never one a frame: mirroring frames apart would break motion.
    """

    probability: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(
                f"flip probability is {self.probability}, but must be in [0, 1]; 0 switches the "
                "flip off."
            )

    def random_map(self, element: Example, rng: np.random.Generator) -> Any:
        """The example with `video` [f h w c] mirrored along w, or unchanged."""
        # [0, 1): probability 0 never flips and 1 always does.
        if rng.random() >= self.probability:
            return element
        return {**element, "video": np.ascontiguousarray(element["video"][:, :, ::-1])}
