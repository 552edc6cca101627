# SPDX-License-Identifier: Apache-2.0
"""Windows of clips that are longer than what a model sees: drawn for training, fixed to measure."""

import dataclasses
from typing import Any

import grain
import numpy as np

Example = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowSize:
    """Length of a window in frames and in samples; ValueError unless both are >= 1."""

    num_frames: int
    num_samples: int

    def __post_init__(self) -> None:
        for name in ("num_frames", "num_samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be >= 1.")

    def starts(self, example: Example) -> int:
        """In how many frames a window may begin; ValueError if the clip is shorter than one."""
        frames, samples = len(example["video"]), len(example["audio"])
        if frames < self.num_frames or samples < self.num_samples:
            raise ValueError(
                f"a clip of {frames} frames and {samples} samples is shorter than the window of "
                f"{self.num_frames} and {self.num_samples}: prepare longer clips, or set "
                "config.clip.seconds lower."
            )
        return frames - self.num_frames + 1

    def cut(self, example: Example, start: int) -> Example:
        """The window that begins with frame `start`, its sound to the nearest sample."""
        frames, samples = len(example["video"]), len(example["audio"])
        first = min(round(start * samples / frames), samples - self.num_samples)
        return {
            **example,
            "video": example["video"][start : start + self.num_frames],
            "audio": example["audio"][first : first + self.num_samples],
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomWindow(grain.transforms.RandomMap):
    """One window of a clip, its first frame uniform over all that leave it whole.

    As the coin of a flip, the draw is a function of (seed, position in the stream) alone.
    """

    size: WindowSize

    def random_map(self, element: Example, rng: np.random.Generator) -> Any:
        return self.size.cut(element, int(rng.integers(self.size.starts(element))))


class FixedWindows:
    """A source of the windows of another's clips: one after the other, the same in every run.

    Each clip gives as many as it holds without overlap; what is left at its end is not used. All
    clips of a source have one length.
    """

    def __init__(self, source: Any, size: WindowSize):
        self._source, self._size = source, size
        self._each = 0
        if len(source):
            self._each = (size.starts(source[0]) - 1) // size.num_frames + 1
        self.metadata = getattr(source, "metadata", {})

    def __len__(self) -> int:
        return len(self._source) * self._each

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        clip, window = divmod(index, self._each)
        return self._size.cut(self._source[clip], window * self._size.num_frames)
