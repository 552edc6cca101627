# SPDX-License-Identifier: Apache-2.0
"""Vocabulary of the project: arrays by modality, clip and latent formats, function types.

Arrays are channel-last: video `[b f h w c]`, mel or audio latent `[b l m c]`, waveform `[b l c]`,
text `[b s d]`. `t` is an int32 noise level `[b]` in 0..T-1, and a prediction is the noise `eps`
unless its name says otherwise.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

Array = jax.Array
# One entry per modality, e.g. {"audio": [b l m c], "video": [b f h w c]}. Nothing in the library
# counts on these names or on there being two of them.
AV = dict[str, Array]
Cond = Any
# (x_t, t, cond) -> eps
DenoiseFn = Callable[[AV, Array, Cond], AV]
# (x_t, t, cond) -> h [b], the log-ratio of the joint density to the product of the base densities
LogRatioFn = Callable[[AV, Array, Cond], Array]
Params = Any
# Before a modality's name: the embedding of its text, in examples and batches.
TEXT = "text_"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipFormat:
    """Length, size and rates of the audio-video clips of an experiment.

    Latent shapes, hop lengths and patches follow from it. seconds: of a clip. fps: frames a second.
    height, width: of a frame, in pixels. sample_rate_hz: samples of the mono sound a second.

    Raises:
      ValueError: a value that is not positive, or less than one frame.
    """

    seconds: float = 2.0
    fps: float = 8
    height: int = 32
    width: int = 32
    sample_rate_hz: int = 16_000

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if not value > 0:
                raise ValueError(f"clip.{name} is {value!r}, but must be above 0.")
        if not self.num_frames:
            raise ValueError(
                f"a clip of {self.seconds} s has no frame at {self.fps} fps: raise clip.seconds "
                "or clip.fps."
            )

    @property
    def num_frames(self) -> int:
        return round(self.seconds * self.fps)

    @property
    def num_samples(self) -> int:
        return round(self.seconds * self.sample_rate_hz)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clock:
    """Times of a latent's frames, in seconds: frame i is centred at first + i * step."""

    first: float
    step: float

    def centres(self, num_frames: int) -> np.ndarray:
        """float64 [num_frames]: seconds of the frames' centres."""
        return self.first + self.step * np.arange(num_frames)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentFormat:
    """One modality as the diffusion models see it.

    shape: of a latent [frames, ..., channels]. clock: times of its frames. text_shape: of an
    embedded prompt, () without text. feature_width: channels of the features that its base model
    offers to discriminators, 0 for none.
    """

    shape: tuple[int, ...]
    clock: Clock
    text_shape: tuple[int, ...] = ()
    feature_width: int = 0
