# SPDX-License-Identifier: Apache-2.0
"""Float to integer: exact at the ends, clipped beyond, and refused where it makes no sense."""

import numpy as np
import pytest

from mmdisco_jax.export.convert import video_to_uint8, waveform_to_int16


def test_every_pixel_value_survives():
    levels = np.arange(256, dtype=np.uint8)
    video = (levels / 127.5 - 1).astype(np.float32).reshape(1, 16, 16, 1).repeat(3, axis=-1)
    np.testing.assert_array_equal(video_to_uint8(video)[0, ..., 0].ravel(), levels)


def test_every_sound_value_survives():
    levels = np.arange(-32767, 32768, dtype=np.int16)
    np.testing.assert_array_equal(waveform_to_int16((levels / 32767).astype(np.float32)), levels)


def test_rounds_to_nearest_and_clips():
    video = np.full((1, 1, 1, 3), [-1.7, 1.7, 0.004], np.float32)  # (1.004) * 127.5 = 128.01
    np.testing.assert_array_equal(video_to_uint8(video).ravel(), [0, 255, 128])
    sound = np.array([-2.0, -1.0, 0.0, 1.6 / 32767, 1.0, 2.0])
    np.testing.assert_array_equal(waveform_to_int16(sound), [-32767, -32767, 0, 2, 32767, 32767])


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (np.zeros((2, 4, 4, 3), np.uint8), "uint8"),
        (np.zeros((4, 4, 3), np.float32), r"\(4, 4, 3\)"),
        (np.zeros((2, 4, 4, 4), np.float32), "3 RGB"),
        (np.full((2, 4, 4, 3), np.nan, np.float32), "96 NaN"),
        (np.full((2, 4, 4, 3), 255.0, np.float32), "255"),
    ],
)
def test_video_that_is_none_is_refused(video, message):
    with pytest.raises(ValueError, match=message):
        video_to_uint8(video)


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (np.zeros(4, np.int16), "int16"),
        (np.zeros((1, 4, 1), np.float32), r"\(1, 4, 1\)"),
        (np.array([0.0, np.inf]), "1 NaN or infinite"),
        (np.array([0.0, 12000.0]), r"1.2e\+04"),
    ],
)
def test_sound_that_is_none_is_refused(waveform, message):
    with pytest.raises(ValueError, match=message):
        waveform_to_int16(waveform)
