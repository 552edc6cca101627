# SPDX-License-Identifier: Apache-2.0
"""Display matrix of a frame: the eight ways to turn and mirror a picture for display."""

import dataclasses
from typing import Any

import numpy as np
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace


@dataclasses.dataclass(frozen=True)
class Orientation:
    """What brings a stored picture upright: first rows and columns change places, then each flips.

    The eight combinations are the quarter turns, and each of them mirrored.
    """

    transposed: bool = False
    flipped_rows: bool = False
    flipped_columns: bool = False

    @property
    def mirrored(self) -> bool:
        """Whether it is more than a turn."""
        return self.transposed ^ self.flipped_rows ^ self.flipped_columns

    @property
    def clockwise_degrees(self) -> int:
        """The turn; of a mirrored picture the turn after its columns were flipped."""
        if self.transposed:
            return 270 if self.flipped_rows else 90
        return 180 if self.flipped_rows else 0

    def __str__(self) -> str:
        """In words, such as "turned by 90 degrees clockwise"; "" for a picture that is upright."""
        words = ["mirrored"] if self.mirrored else []
        if self.clockwise_degrees:
            words.append(f"turned by {self.clockwise_degrees} degrees clockwise")
        return " and ".join(words)

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """Turns a picture [h w ...], without a copy."""
        if self.transposed:
            picture = picture.swapaxes(0, 1)
        rows = slice(None, None, -1 if self.flipped_rows else 1)
        columns = slice(None, None, -1 if self.flipped_columns else 1)
        return picture[rows, columns]


_QUARTER_TURNS = (  # anticlockwise, as PyAV counts
    Orientation(),
    Orientation(transposed=True, flipped_rows=True),
    Orientation(flipped_rows=True, flipped_columns=True),
    Orientation(transposed=True, flipped_columns=True),
)


def orientation_of(frame: Any) -> Orientation:
    """Returns how a frame is to be displayed; the nearest of the eight for a matrix between them.

    The matrix (a, b; c, d) sends column x and row y of the stored picture to column a x + c y and
    row b x + d y (ISO/IEC 14496-12, 6.2.2); FFmpeg's display (`autorotate`) agrees.

    Makes a small copy of the frame, because PyAV frees one whose side data were read only when
    Python collects cycles. `Pictures.upright` does so once a stream.
    """
    matrix = None
    if isinstance(frame, VideoFrame):
        any_matrix = Colorspace.ITU601  # the scaler refuses some
        small = frame.reformat(
            width=16,
            height=16,
            format="gray",
            src_colorspace=any_matrix,
            dst_colorspace=any_matrix,
        )
        matrix = small.side_data.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return _QUARTER_TURNS[round((getattr(frame, "rotation", 0) or 0) / 90) % 4]
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(transposed=True, flipped_rows=b < 0, flipped_columns=c < 0)
    return Orientation(flipped_rows=d < 0, flipped_columns=a < 0)
