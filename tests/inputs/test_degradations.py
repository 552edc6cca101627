# SPDX-License-Identifier: Apache-2.0
"""Training pairs of super-resolution: shapes, ranges, chances, and a function of its arguments."""

import dataclasses

import cv2
import numpy as np
import pytest

from mmdisco_jax.inputs.degradations import (
    OFFICIAL,
    DegradationSpec,
    RandomPairs,
    degraded,
    letterboxed,
)

FRAME = np.random.default_rng(0).integers(0, 256, (48, 30, 3), dtype=np.uint8)
CLEAN = DegradationSpec(noise_probability=0, jpeg_probability=0)
# Small, for the tests that draw hundreds of pairs.
SMALL = DegradationSpec(high_size=32, low_size=16)


def pixels(picture: np.ndarray) -> np.ndarray:
    return (picture.astype(np.float64) + 1) * 127.5


def pairs(spec: DegradationSpec, count: int, frame: np.ndarray = FRAME) -> list:
    rng = np.random.default_rng(7)
    return [degraded(frame, rng, spec) for _ in range(count)]


def test_official_sizes_and_ranges():
    for pair in pairs(OFFICIAL, 8):
        assert {name: (x.shape, x.dtype) for name, x in pair.items()} == {
            "high": ((256, 256, 3), np.float32),
            "low": ((64, 64, 3), np.float32),
        }
        assert pair["high"].min() >= -1 and pair["high"].max() <= 1
        assert np.abs(pair["low"]).max() < 1 + 6 * 20 / 127.5  # six deviations of the most noise


@pytest.mark.parametrize(
    ("shape", "inside"),  # where the frame comes to lie in a square of 256
    [
        ((48, 30), (slice(0, 256), slice(48, 208))),
        ((36, 64), (slice(56, 200), slice(0, 256))),
        ((512, 512), (slice(0, 256), slice(0, 256))),
        ((360, 480), (slice(32, 224), slice(0, 256))),
        ((3, 1000), (slice(127, 128), slice(0, 256))),  # never thinner than a pixel
    ],
)
def test_the_whole_frame_lies_in_the_middle_of_black(shape, inside):
    white = letterboxed(np.full((*shape, 3), 255, np.uint8), 256)
    want = np.zeros((256, 256, 3), np.uint8)
    want[inside] = 255
    np.testing.assert_array_equal(white, want)


def test_low_is_the_cubic_reduction_of_high():
    (pair,) = pairs(CLEAN, 1)
    high = pixels(pair["high"]).round().astype(np.uint8)
    want = cv2.resize(high, (64, 64), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_allclose(pixels(pair["low"]), want, atol=1e-3)
    assert pair["high"][0, 0, 0] == -1  # black is -1


def test_a_pair_is_a_function_of_frame_and_generator():
    before = FRAME.copy()
    first, second = (pairs(OFFICIAL, 6) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert all(np.array_equal(a[name], b[name]) for name in a)
    lows = [pair["low"].tobytes() for pair in first]
    assert len(set(lows)) >= 4  # of six, those without noise and JPEG are alike
    np.testing.assert_array_equal(FRAME, before)


def test_half_get_noise_of_a_deviation_up_to_twenty():
    grey = np.full((32, 32, 3), 128, np.uint8)
    drawn = pairs(dataclasses.replace(SMALL, jpeg_probability=0), 600, grey)
    deviations = np.array([pixels(pair["low"]).std() for pair in drawn])
    noisy = deviations[deviations > 0]
    assert 0.42 < len(noisy) / 600 < 0.58  # four standard deviations of a fair coin
    # 768 values measure a deviation to 2.6 %; its mean over U(0, 20) is 10 within 1.4.
    assert noisy.max() < 22 and noisy.min() < 1
    assert abs(noisy.mean() - 10) < 1.4


def test_half_get_jpeg_of_a_quality_from_twenty_to_eighty():
    drawn = pairs(dataclasses.replace(SMALL, noise_probability=0), 600)
    (plain,) = pairs(dataclasses.replace(SMALL, noise_probability=0, jpeg_probability=0), 1)
    clean = pixels(plain["low"]).round().astype(np.uint8)
    by_content: dict[bytes, list[int]] = {}
    for quality in range(1, 101):
        encoded = cv2.imencode(".jpg", clean, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        content = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR)).tobytes()
        by_content.setdefault(content, []).append(quality)
    spoilt = [p["low"] for p in drawn if not np.array_equal(p["low"], plain["low"])]
    assert 0.42 < len(spoilt) / 600 < 0.58
    found = [by_content[pixels(low).round().astype(np.uint8).tobytes()] for low in spoilt]
    assert {q for qualities in found if len(qualities) == 1 for q in qualities} <= set(
        range(20, 80)
    )
    assert min(map(min, found)) <= 22 and max(map(max, found)) >= 77


def test_noise_survives_only_without_jpeg():
    """As official: noise alone is not clipped; JPEG takes whole numbers of 0..255."""
    white = np.full((32, 32, 3), 255, np.uint8)
    always = dataclasses.replace(SMALL, noise_probability=1)
    alone = pairs(dataclasses.replace(always, jpeg_probability=0), 20, white)
    assert max(pair["low"].max() for pair in alone) > 1
    both = pairs(dataclasses.replace(always, jpeg_probability=1), 20, white)
    for pair in both:
        assert pair["low"].max() <= 1
        assert pair["low"].mean() > 0.8  # what exceeds white is white, and not black again
        np.testing.assert_allclose(pixels(pair["low"]), pixels(pair["low"]).round(), atol=1e-3)


def test_drawn_pairs_are_different_frames_of_the_clip_by_the_generator_alone():
    clip = np.zeros((6, 32, 32, 3), np.uint8) + np.arange(6, dtype=np.uint8)[:, None, None, None]
    spec = dataclasses.replace(SMALL, noise_probability=0, jpeg_probability=0)
    draw = RandomPairs(spec=spec, frames_per_clip=4)
    seen = []
    for seed in range(30):
        first, second = (
            draw.random_map({"video": clip}, np.random.default_rng(seed)) for _ in range(2)
        )
        assert {name: x.shape for name, x in first.items()} == {
            "high": (4, 32, 32, 3),
            "low": (4, 16, 16, 3),
        }
        assert all(np.array_equal(first[name], second[name]) for name in first)
        high, low = (pixels(first[name])[:, 8, 8, 0].round() for name in ("high", "low"))
        np.testing.assert_array_equal(high, low)  # each low beside its own high
        assert len(set(high)) == 4
        seen += high.tolist()
    assert set(seen) == set(range(6))


def test_clips_that_give_no_pairs():
    rng, clip = np.random.default_rng(0), {"video": np.zeros((2, 32, 30, 3), np.uint8)}
    with pytest.raises(ValueError, match=r"2 frames cannot give 3: lower .*frames_per_clip"):
        RandomPairs(spec=SMALL, frames_per_clip=3).random_map(clip, rng)
    with pytest.raises(ValueError, match=r"are 32 x 30 pixels, but .*high_size is 33: prepare"):
        RandomPairs(spec=dataclasses.replace(SMALL, high_size=33)).random_map(clip, rng)
    with pytest.raises(ValueError, match="frames_per_clip is 0"):
        RandomPairs(frames_per_clip=0)


@pytest.mark.parametrize(
    "frame",
    [FRAME.astype(np.float32), FRAME[..., :1], FRAME[0], FRAME[:0]],
    ids=["float", "grey", "row", "empty"],
)
def test_other_frames_are_refused(frame: np.ndarray):
    with pytest.raises(ValueError, match=r"must be uint8 \[height width 3\]"):
        degraded(frame, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low_size": 0}, "low_size is 0"),
        ({"noise_probability": 1.5}, "noise_probability is 1.5"),
        ({"jpeg_probability": float("nan")}, "jpeg_probability is nan"),
        ({"max_noise": -1}, "max_noise is -1"),
        ({"jpeg_quality": (80, 20)}, r"jpeg_quality \(80, 20\) must rise"),
        ({"jpeg_quality": (0, 20)}, "must rise within"),
    ],
)
def test_bad_spec(change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        DegradationSpec(**change)
