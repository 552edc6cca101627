# SPDX-License-Identifier: Apache-2.0
"""TFDS builder of `aist_plus_plus`: dance with music, as MM-Diffusion released it (cropped)."""

import dataclasses
import re

from mmdisco_jax.media.builder import MediaBuilder, MediaOptions
from mmdisco_jax.media.entries import Entry, scan, split_by_folder

# Of AIST's file names, such as gBR_sBM_c01_d04_mBR0_ch01: the camera.
_CAMERA = re.compile(r"_c\d+(?=_)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(MediaOptions):
    """Those of `MediaOptions`; `folder` is the released one.

    Files in a folder `train` or `test` are of that split. Of others a tenth of the performances
    are `test`; the cameras that saw one performance share its split.
    """

    def entries(self) -> list[Entry]:
        return [
            dataclasses.replace(entry, group=_CAMERA.sub("", entry.path.stem))
            for entry in split_by_folder(scan(self.folder))
        ]

    def shares(self) -> dict[str, float]:
        return {"test": 0.1, "train": 0.9}


class Builder(MediaBuilder):
    """Builder of `aist_plus_plus`; see README.md."""

    OPTIONS = Options
