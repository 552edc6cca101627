# SPDX-License-Identifier: Apache-2.0
"""A dataset from outside, simulated: clips that grow brighter as they grow louder."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

SHAPES = {"video": (4, 16, 16, 3), "audio": (8000,)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    num_train: int = 8
    num_test: int = 4


@dataclasses.dataclass(kw_only=True)
class Config(tfds.core.BuilderConfig):
    options: Options = dataclasses.field(default_factory=Options)


class RisingClips(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of clips of one second, 4 frames and 8000 samples."""

    OPTIONS = Options
    VERSION = tfds.core.Version("1.0.0")
    SIMULATED = True
    code_path = epath.Path(__file__)

    @staticmethod
    def config(**options: Any) -> Config:
        chosen = Options(**options)
        return Config(name=f"train{chosen.num_train}_test{chosen.num_test}", options=chosen)

    def _info(self) -> tfds.core.DatasetInfo:
        kinds = {"video": np.uint8, "audio": np.int16}
        features = {
            m: tfds.features.Tensor(shape=SHAPES[m], dtype=kind, encoding="bytes")
            for m, kind in kinds.items()
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(fps=4, sample_rate_hz=8000, clip_seconds=1.0),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        options: Any = getattr(self.builder_config, "options", Options())
        return {"train": _clips(options.num_train, 0), "test": _clips(options.num_test, 1)}

    def _generate_examples(self, *arguments: Any):
        raise NotImplementedError("the splits are generators already")


def _clips(number: int, seed: int):
    rng = np.random.default_rng(seed)
    for index in range(number):
        level = np.linspace(0, rng.uniform(0.2, 1), 4)
        video = np.broadcast_to(255 * level[:, None, None, None], SHAPES["video"])
        sound = np.repeat(level, 2000) * np.sin(np.arange(8000) * 0.3)
        yield index, {"video": video.astype(np.uint8), "audio": (30000 * sound).astype(np.int16)}
