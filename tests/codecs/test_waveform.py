# SPDX-License-Identifier: Apache-2.0
"""Every sample comes back; what is too loud is clipped, once, at the end."""

import numpy as np
import pytest

from mmdisco_jax.codecs.waveform import Waveform
from mmdisco_jax.io import to_int16


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_every_sample_comes_back(scale):
    codec = Waveform(scale=scale)
    samples = np.arange(-32767, 32768, dtype=np.int16)[None]
    x = np.asarray(codec.encode(samples))
    assert x.shape == (1, 65535, 1) and x.dtype == np.float32
    np.testing.assert_allclose(x[0, -1, 0], 32767 / 32768 / scale, rtol=1e-6)
    heard = to_int16(codec.decode(x)[0])
    assert np.abs(heard.astype(int) - samples[0]).max() <= 1  # 32767 or 32768 levels
    loud = codec.decode(np.full((1, 2, 1), 3.0 / scale))
    np.testing.assert_array_equal(loud, np.ones((1, 2)))


def test_a_scale_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"scale is 0.*> 0"):
        Waveform(scale=0.0)


def test_folding_gives_each_position_its_own_stretch():
    samples = np.arange(24, dtype=np.int16).reshape(2, 12)
    codec = Waveform(fold=4)
    x = np.asarray(codec.encode(samples))
    np.testing.assert_array_equal(x * 32768, samples.reshape(2, 3, 4))
    np.testing.assert_allclose(codec.decode(x) * 32768, samples, atol=1e-3)
    with pytest.raises(ValueError, match=r"12 samples cannot be folded by 5"):
        Waveform(fold=5).encode(samples)
    with pytest.raises(ValueError, match=r"fold is 0"):
        Waveform(fold=0)
