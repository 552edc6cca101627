# SPDX-License-Identifier: Apache-2.0
"""Sliceable collection of clips: one example by number, or a batch by slice."""

from collections.abc import Mapping
from typing import Any, overload

import numpy as np


class Clips:
    """Clips of a source; `clips[3]` is an example, `clips[:8]` a batch of eight.

    Attributes: `metadata` of the source.
    """

    def __init__(self, source: Any):
        self._source = source
        self.metadata: Mapping[str, Any] = getattr(source, "metadata", {})

    def __len__(self) -> int:
        return len(self._source)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> dict[str, np.ndarray]: ...

    def __getitem__(self, index: int | slice) -> dict[str, Any]:
        """An example with all that is known of it; or {"video": uint8 [n f h w 3], "audio": int16
        [n samples]} of a slice.

        Raises:
          IndexError: no clip of that number, or a slice without any.
        """
        if not isinstance(index, slice):
            return self._source[index]
        some = [self._source[i] for i in range(*index.indices(len(self)))]
        if not some:
            raise IndexError(f"{index} holds none of the {len(self)} clips.")
        return {m: np.stack([np.asarray(one[m]) for one in some]) for m in ("video", "audio")}
