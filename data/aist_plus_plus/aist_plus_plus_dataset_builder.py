# SPDX-License-Identifier: Apache-2.0
"""TFDS builder of `aist_plus_plus`: dance with music, as MM-Diffusion released it (cropped)."""

import dataclasses
import re

from mmdisco_jax.media.builder import MediaBuilder, MediaOptions
from mmdisco_jax.media.entries import Entry, scan, split_by_folder

# The camera in AIST's file names, such as gBR_sBM_c01_d04_mBR0_ch01.
_CAMERA = re.compile(r"_c\d+(?=_)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(MediaOptions):
    """Options of `MediaOptions`, with `folder` as the root of the released AIST++_crop.

    Files in a folder `train` or `test` get that split. Of the other performances a tenth goes to
    `test`; all cameras of one performance share its split.
    """

    def entries(self) -> list[Entry]:
        return [
            dataclasses.replace(entry, group=_CAMERA.sub("", entry.path.stem))
            for entry in split_by_folder(scan(self.folder))
        ]

    def shares(self) -> dict[str, float]:
        return {"test": 0.1, "train": 0.9}


class Builder(MediaBuilder):
    """TFDS builder of `aist_plus_plus`; see README.md."""

    OPTIONS = Options
