# SPDX-License-Identifier: Apache-2.0
"""Display geometry: turned frames and pixels that are not square."""

import dataclasses
from collections.abc import Callable
from typing import Any

import av
import numpy as np
import pytest

from mmdisco_jax.media.picture import centred, fit


@dataclasses.dataclass
class Turned:
    """A frame with a display matrix, as phones write it; PyAV can read one but not make one."""

    rotation: int
    height: int
    width: int
    reformat: Callable


def turned(pixels: np.ndarray, rotation: int) -> Any:
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    return Turned(rotation, frame.height, frame.width, frame.reformat)


@pytest.mark.parametrize(
    ("rotation", "bright"),
    [
        (0, np.s_[:, :4]),
        (-90, np.s_[:4]),
        (90, np.s_[4:]),
        (180, np.s_[:, 4:]),
        (-180, np.s_[:, 4:]),
    ],
)
def test_display_matrix_counts_anticlockwise(rotation, bright):
    # A quarter turn clockwise (-90) brings what was on the left to the top.
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = 250
    picture = fit(turned(pixels, rotation), height=8, width=8, policy="centre_crop")
    wanted = np.zeros((8, 8, 3), bool)
    wanted[bright] = True
    np.testing.assert_array_equal(picture > 125, wanted)


@pytest.mark.parametrize(
    ("rotation", "pixel_aspect", "shape"),
    [(0, 1.0, (8, 16)), (90, 1.0, (16, 8)), (0, 0.5, (16, 16)), (0, 2.0, (4, 16))],
)
def test_pad_shows_the_whole_picture_with_square_pixels(rotation, pixel_aspect, shape):
    white = np.full((8, 16, 3), 255, np.uint8)
    frame = turned(white, rotation)
    picture = fit(frame, height=16, width=16, policy="pad", pixel_aspect=pixel_aspect)
    lit = picture.max(axis=2) > 125
    assert (lit.any(axis=1).sum(), lit.any(axis=0).sum()) == shape
    np.testing.assert_array_equal(lit, lit[::-1, ::-1])  # centred


def test_centred_crops_and_pads_about_the_middle():
    ramp = np.broadcast_to(np.arange(1, 8)[None, :, None], (2, 7, 3))
    out = centred(ramp, 4, 3)
    np.testing.assert_array_equal(out[:, :, 0], [[0, 0, 0], [3, 4, 5], [3, 4, 5], [0, 0, 0]])
