# SPDX-License-Identifier: Apache-2.0
"""Every grey level comes back, whole or in patches."""

import numpy as np
import pytest

from mmdisco_jax.codecs.pixels import Pixels


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_every_pixel_comes_back(patch):
    frames = np.arange(2 * 3 * 8 * 12 * 3).reshape(2, 3, 8, 12, 3).astype(np.uint8)
    codec = Pixels(patch=patch)
    x = np.asarray(codec.encode(frames))
    assert x.shape == (2, 3, 8 // patch, 12 // patch, 3 * patch**2)
    assert x.min() == -1 and x.max() == 1
    np.testing.assert_array_equal(codec.decode(x), frames)


def test_a_position_holds_the_pixels_of_its_own_square():
    frames = np.zeros((1, 1, 4, 6, 3), np.uint8)
    frames[0, 0, 2:, 4:] = 255
    x = np.asarray(Pixels(patch=2).encode(frames))
    assert (x[0, 0, 1, 2] == 1).all()
    x[0, 0, 1, 2] = -1
    assert (x == -1).all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"patch of pixels is 0"):
        Pixels(patch=0)
    with pytest.raises(ValueError, match=r"8 x 12 pixels cannot be cut into patches of 5"):
        Pixels(patch=5).encode(np.zeros((1, 1, 8, 12, 3), np.uint8))
