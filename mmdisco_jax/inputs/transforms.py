# SPDX-License-Identifier: Apache-2.0
"""Grain transforms of single examples: selection of the model's inputs and mirroring."""

import dataclasses
from typing import Any

import grain
import numpy as np

from mmdisco_jax.types import TEXT

Example = dict[str, np.ndarray]

# Chance that a clip is mirrored, by name. "official" is what MM-Diffusion's code does: it intends
# one half, but mirrors every training clip, and none for measurements.
FLIPS = {"off": 0.0, "half": 0.5, "official": 1.0}


def pair_only(example: dict) -> Example:
    """Keeps `video`, `audio` and their text embeddings; drops ground truth and file names."""
    texts = {k: x for k, x in example.items() if k.startswith(TEXT)}
    return {"video": example["video"], "audio": example["audio"], **texts}


@dataclasses.dataclass(frozen=True, kw_only=True)
class HorizontalFlip(grain.transforms.RandomMap):
    """Random left-right mirroring of whole clips with `probability` in [0, 1]; sound stays.

    There is one draw for each clip, because mirroring frames independently would break motion. It
    depends only on (seed, position in the stream), so a resumed run draws the same.
    """

    probability: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(
                f"flip probability is {self.probability}, but must be in [0, 1]; 0 switches the "
                "flip off."
            )

    def random_map(self, element: Example, rng: np.random.Generator) -> Any:
        """Returns the example with `video` [f h w c] mirrored along w, or unchanged."""
        # rng.random() is in [0, 1), so probability 0 never flips and 1 always does.
        if rng.random() >= self.probability:
            return element
        return {**element, "video": np.ascontiguousarray(element["video"][:, :, ::-1])}
