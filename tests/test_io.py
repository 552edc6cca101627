# SPDX-License-Identifier: Apache-2.0
"""Conversions exact at the ends, clipped beyond and refused where senseless; files and folders."""

import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmdisco_jax.io import (
    digest,
    from_int16,
    from_uint8,
    replacing_folder,
    to_int16,
    to_uint8,
)


def test_every_pixel_value_survives():
    levels = np.arange(256, dtype=np.uint8)
    video = (levels / 127.5 - 1).astype(np.float32).reshape(1, 16, 16, 1).repeat(3, axis=-1)
    np.testing.assert_array_equal(to_uint8(video)[0, ..., 0].ravel(), levels)


def test_every_sound_value_survives():
    levels = np.arange(-32767, 32768, dtype=np.int16)
    np.testing.assert_array_equal(to_int16((levels / 32767).astype(np.float32)), levels)


def test_rounds_to_nearest_and_clips():
    video = np.full((1, 1, 1, 3), [-1.7, 1.7, 0.004], np.float32)  # (1.004) * 127.5 = 128.01
    np.testing.assert_array_equal(to_uint8(video).ravel(), [0, 255, 128])
    sound = np.array([-2.0, -1.0, 0.0, 1.6 / 32767, 1.0, 2.0])
    np.testing.assert_array_equal(to_int16(sound), [-32767, -32767, 0, 2, 32767, 32767])


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
        to_uint8(video)


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
        to_int16(waveform)


def test_both_ways_are_the_same_on_numpy_jax_and_traced_arrays():
    rng = np.random.default_rng(0)
    video = (1.2 * rng.uniform(-1, 1, (2, 4, 4, 3))).astype(np.float32)
    sound = (1.2 * rng.uniform(-1, 1, 999)).astype(np.float32)
    for convert, back, x in (
        (to_uint8, from_uint8, video),
        (to_int16, from_int16, sound),
    ):
        whole = convert(x)
        assert isinstance(whole, np.ndarray)
        np.testing.assert_array_equal(convert(jnp.asarray(x)), whole)
        traced = jax.jit(functools.partial(convert, check=False))(x)
        np.testing.assert_array_equal(traced, whole)
        floats = back(whole)
        assert floats.dtype == np.float32
        assert isinstance(back(jnp.asarray(whole)), jax.Array)
        np.testing.assert_allclose(jax.jit(back)(whole), floats, rtol=1e-6, atol=1e-7)
        assert convert(jnp.asarray(x, jnp.bfloat16), check=False).dtype == whole.dtype


def test_sound_is_read_as_int16_over_32768_and_floats_stay():
    np.testing.assert_array_equal(from_int16(np.array([-32768, 16384], np.int16)), [-1, 0.5])
    assert from_int16(np.array([0.25]), np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="int32"):
        from_int16(np.zeros(3, np.int32))


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "new"
    with pytest.raises(RuntimeError, match="midway"), replacing_folder(target) as folder:
        (folder / "a").write_text("half")
        raise RuntimeError("midway")
    assert not list(tmp_path.iterdir())
    target.mkdir()  # an empty folder may be there
    with replacing_folder(target) as folder:
        (folder / "a").write_text("whole")
        assert not list(target.iterdir())
    assert (target / "a").read_text() == "whole" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(FileExistsError, match="move it away"), replacing_folder(target):
        pass


def test_digest_is_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert digest(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(FileNotFoundError, match="correct the path"):
        digest(tmp_path / "b")
