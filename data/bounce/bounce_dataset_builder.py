# SPDX-License-Identifier: Apache-2.0
"""TFDS builder of `bounce`: simulated clips with their ground truth.

Arrays are stored as raw bytes (`encoding="bytes"`), which TFDS writes and reads without TensorFlow.
They are six times smaller than TFDS's default of 64-bit integers.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from mmdisco_jax.worlds.bounce import physics

# Each split owns a block of indices, so no clip is in two splits, whatever their sizes.
FIRST_INDEX = {"train": 0, "test": 10_000_000}
MAX_SPLIT_CLIPS = 10_000_000
MAX_IMPACTS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `bounce`.

    Attributes:
      num_train, num_test: clips of each split, in 1..10,000,000.
      seed: seed of the simulation, >= 0.

    Raises:
      ValueError: a value is out of its range.
    """

    num_train: int = 8000
    num_test: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_train", "num_test"):
            value = getattr(self, name)
            if not 1 <= value <= MAX_SPLIT_CLIPS:
                raise ValueError(
                    f"bounce: {name} is {value}, but must be in 1..{MAX_SPLIT_CLIPS}; ask for "
                    "at least one clip."
                )
        if self.seed < 0:
            raise ValueError(f"bounce: seed is {self.seed}, but must be >= 0; choose another.")


def clip_index(split: str, record: int) -> int:
    """Returns the simulator's index of a record, so that the record is simulate(seed, index)."""
    return FIRST_INDEX[split] + record


@dataclasses.dataclass(kw_only=True)
class Config(tfds.core.BuilderConfig):
    """TFDS config that carries `Options`; its name names the folder of the records."""

    options: Options = dataclasses.field(default_factory=Options)


class Builder(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of `bounce`; README.md describes a record."""

    OPTIONS = Options
    VERSION = tfds.core.Version("1.0.0")
    SIMULATED = True  # needs no files of the user
    # TFDS would find this by importlib_resources, which it needs but does not declare.
    code_path = epath.Path(__file__)

    @staticmethod
    def config(**options: Any) -> Config:
        """Config for `Options(**options)`."""
        chosen = Options(**options)
        name = f"train{chosen.num_train}_test{chosen.num_test}_seed{chosen.seed}"
        return Config(name=name, description="A bouncing, ringing ball.", options=chosen)

    @property
    def options(self) -> Options:
        """Options that this builder was made with."""
        chosen = self.builder_config
        return chosen.options if isinstance(chosen, Config) else Options()

    def _info(self) -> tfds.core.DatasetInfo:
        tensor = tfds.features.Tensor
        video_shape = (physics.NUM_FRAMES, physics.FRAME_SIZE, physics.FRAME_SIZE, 3)
        features = {
            "video": tensor(shape=video_shape, dtype=np.uint8, encoding="bytes"),
            "audio": tensor(shape=(physics.NUM_SAMPLES,), dtype=np.int16, encoding="bytes"),
            "impact_seconds": tensor(shape=(MAX_IMPACTS,), dtype=np.float32, encoding="bytes"),
            "impact_speeds": tensor(shape=(MAX_IMPACTS,), dtype=np.float32, encoding="bytes"),
            "height": tensor(shape=(physics.NUM_FRAMES,), dtype=np.float32, encoding="bytes"),
            "num_impacts": np.int32,
            "colour": np.int32,
            "index": np.int64,
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Synthetic pairs of video and sound with known impacts and colour.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
            license="Apache-2.0",
            metadata=tfds.core.MetadataDict(
                fps=physics.FPS,
                sample_rate_hz=physics.SAMPLE_RATE_HZ,
                clip_seconds=physics.CLIP_SECONDS,
                seed=self.options.seed,
            ),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        options = self.options
        return {
            "train": self._generate_examples("train", options.num_train),
            "test": self._generate_examples("test", options.num_test),
        }

    def _generate_examples(self, split: str, num_clips: int) -> Iterator[tuple[int, dict]]:
        for record in range(num_clips):
            yield record, example(self.options.seed, clip_index(split, record))


def example(seed: int, index: int) -> dict[str, Any]:
    """Makes the record of simulate(seed, index); impacts are padded with NaN to `MAX_IMPACTS`."""
    clip = physics.simulate(seed, index)
    return {
        "video": clip.video,
        "audio": clip.audio,
        "impact_seconds": _padded(clip.impact_seconds),
        "impact_speeds": _padded(clip.impact_speeds),
        "height": clip.height.astype(np.float32),
        "num_impacts": len(clip.impact_seconds),
        "colour": clip.colour,
        "index": index,
    }


def _padded(values: np.ndarray) -> np.ndarray:
    padded = np.full(MAX_IMPACTS, np.nan, np.float32)
    padded[: len(values)] = values
    return padded
