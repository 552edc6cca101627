# SPDX-License-Identifier: Apache-2.0
"""Windows cut from clips that are longer than the model's input.

Training draws a random window from each clip; evaluation uses all windows in a fixed order.
"""

import dataclasses
from typing import Any

import grain
import numpy as np

from mmdisco_jax.checks import require_at_least
from mmdisco_jax.inputs.transforms import Example


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowSize:
    """Length of a window in frames and in samples; raises ValueError unless both are >= 1."""

    num_frames: int
    num_samples: int

    def __post_init__(self) -> None:
        require_at_least(1, num_frames=self.num_frames, num_samples=self.num_samples)

    def num_starts(self, example: Example) -> int:
        """Number of frames at which a window may begin; ValueError if the clip is too short."""
        frames, samples = len(example["video"]), len(example["audio"])
        if frames < self.num_frames or samples < self.num_samples:
            raise ValueError(
                f"a clip of {frames} frames and {samples} samples is shorter than the window of "
                f"{self.num_frames} and {self.num_samples}: prepare longer clips, or set "
                "config.clip.seconds lower."
            )
        return frames - self.num_frames + 1

    def cut(self, example: Example, start: int) -> Example:
        """Cuts the window that begins with frame `start`; sound begins at the nearest sample."""
        frames, samples = len(example["video"]), len(example["audio"])
        first = min(round(start * samples / frames), samples - self.num_samples)
        return {
            **example,
            "video": example["video"][start : start + self.num_frames],
            "audio": example["audio"][first : first + self.num_samples],
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomWindow(grain.transforms.RandomMap):
    """Random choice of one window of a clip; its first frame is uniform over all possible ones.

    The draw depends only on (seed, position in the stream).
    """

    size: WindowSize

    def random_map(self, element: Example, rng: np.random.Generator) -> Any:
        """Returns the example with `video` and `audio` cut to the window."""
        return self.size.cut(element, int(rng.integers(self.size.num_starts(element))))


class FixedWindows:
    """Source of all windows of another source's clips, in a fixed order and without overlap.

    The rest at a clip's end is not used. All clips must have the same length.
    """

    def __init__(self, source: Any, size: WindowSize):
        self._source, self._size = source, size
        self._each = 0
        if len(source):
            self._each = (size.num_starts(source[0]) - 1) // size.num_frames + 1
        self.metadata = getattr(source, "metadata", {})

    def __len__(self) -> int:
        return len(self._source) * self._each

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        clip, window = divmod(index, self._each)
        return self._size.cut(self._source[clip], window * self._size.num_frames)
