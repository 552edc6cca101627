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
    x = np.array(Pixels(patch=2).encode(frames))
    assert (x[0, 0, 1, 2] == 1).all()
    x[0, 0, 1, 2] = -1
    assert (x == -1).all()


def test_shrunk_frames_are_means_of_squares_and_stay_small():
    frames = np.random.default_rng(0).integers(0, 256, (1, 2, 8, 12, 3), np.uint8)
    want = [
        [frames[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((2, 3)) for j in range(6)]
        for i in range(4)
    ]
    want = np.moveaxis(np.array(want), (0, 1), (2, 3))
    codec = Pixels(shrink=2)
    x = codec.encode(frames)
    np.testing.assert_allclose((np.asarray(x) + 1) * 127.5, want, atol=1e-3)
    small = codec.decode(x)
    assert small.shape == (1, 2, 4, 6, 3)
    folded = Pixels(shrink=2, patch=2)
    assert folded.encode(frames).shape == (1, 2, 2, 3, 12)
    np.testing.assert_array_equal(folded.decode(folded.encode(frames)), small)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"patch of pixels is 0"):
        Pixels(patch=0)
    with pytest.raises(ValueError, match=r"shrink of pixels is 0"):
        Pixels(shrink=0)
    with pytest.raises(ValueError, match=r"squares of 8: patch \* shrink \(2 \* 4\) must divide"):
        Pixels(patch=2, shrink=4).encode(np.zeros((1, 1, 8, 12, 3), np.uint8))
    with pytest.raises(ValueError, match=r"8 x 12 pixels cannot be cut into squares of 5"):
        Pixels(patch=5).encode(np.zeros((1, 1, 8, 12, 3), np.uint8))
