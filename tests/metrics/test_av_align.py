# SPDX-License-Identifier: Apache-2.0
"""AV-Align: what the four versions disagree about, and clips whose alignment is known.

Agreement with the published code (peaks, flow, scores) is held by the golden file of that kind.
"""

import numpy as np
import pytest

from mmdisco_jax.metrics import METRICS, api, av_align

FPS, RATE, FRAMES = 10, 16_000, 30
EVENTS = (8, 15, 22)  # frames


def _video(events=EVENTS) -> np.ndarray:
    """A smooth texture that stands still but for a jump of two pixels at each event."""
    y, x = np.mgrid[:48, :48]
    frames, shift = [], 0
    for frame in range(FRAMES):
        shift += 2 * (frame in events)
        wave = 128 + 60 * np.sin((x + shift) / 4) + 60 * np.cos((y - shift) / 5)
        frames.append(np.repeat(wave[..., None], 3, -1))
    return np.stack(frames).astype(np.uint8)


def _audio(events=EVENTS) -> np.ndarray:
    """A click (10 ms of decaying noise) at each event, in silence."""
    wave = np.zeros(FRAMES * RATE // FPS)
    click = np.random.default_rng(0).standard_normal(800) * np.exp(-np.arange(800) / 160)
    for event in events:
        wave[event * RATE // FPS :][:800] += 8000 * click
    return np.clip(wave, -32768, 32767).astype(np.int16)


def _score(name: str, video: np.ndarray, audio: np.ndarray) -> api.Result:
    metric = METRICS.get(name)(api.Context(fps=FPS, sample_rate_hz=RATE, replicates=20))
    batch = {"video": video[None], "audio": audio[None]}
    return metric.compute(metric.update(metric.init(), batch))[0]


@pytest.mark.parametrize("name", ["av_align_v1", "av_align_v2", "av_align_v3", "av_align_v4"])
def test_jumps_with_clicks_align_and_shifted_clicks_do_not(name):
    together = _score(name, _video(), _audio())
    assert together.protocol == name
    assert together.detail == {"audio_peaks": 3.0, "video_peaks": 3.0}
    assert together.value == pytest.approx(1.0, abs=1e-6)
    assert _score(name, _video(), _audio([event + 3 for event in EVENTS])).value == 0.0


def test_last_bits_of_the_flow_are_no_motion(monkeypatch):
    """OpenCV's flow of equal pairs of pictures may differ by rounding."""
    exact, rng = av_align._mean_flow, np.random.default_rng(0)
    monkeypatch.setattr(
        av_align, "_mean_flow", lambda *pair: exact(*pair) + 1e-9 * rng.standard_normal()
    )
    assert _score("av_align_v1", _video(), _audio()).detail["video_peaks"] == 3.0


@pytest.mark.parametrize("name", ["av_align_v1", "av_align_v2", "av_align_v3", "av_align_v4"])
def test_without_any_peak_the_score_is_0(name):
    still, silent = _video(events=()), np.zeros(48_000, np.int16)
    assert _score(name, still, silent).value == 0.0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("av_align_v1", 3.0),
        ("av_align_v2", 1 / 3),
        ("av_align_v3", 3 / (1 + 1e-6)),
        ("av_align_v4", 1 / 3),
    ],
)
def test_three_sounds_near_one_motion(name, expected):
    """Many-to-one matching exceeds 1 here, as a user of the first version reported."""
    sounds, motions = np.array([0.45, 0.50, 0.55]), np.array([0.5])
    assert av_align.score(sounds, motions, FPS, av_align.PROTOCOLS[name]) == pytest.approx(
        expected, rel=1e-12
    )


def test_one_to_one_takes_the_first_free_motion():
    rules = av_align.PROTOCOLS["av_align_v2"]
    # 0.50 takes 0.45; 0.52 takes 0.55; 0.53 finds none left: 2 / (3 + 2 - 2).
    got = av_align.score(np.array([0.50, 0.52, 0.53]), np.array([0.45, 0.55]), FPS, rules)
    assert got == pytest.approx(2 / 3)


def test_a_match_is_strictly_nearer_than_a_frame():
    rules = av_align.PROTOCOLS["av_align_v2"]
    assert av_align.score(np.array([1.25]), np.array([1.0]), 4, rules) == 0.0
    assert av_align.score(np.array([1.2499]), np.array([1.0]), 4, rules) == 1.0


def test_motion_peaks_are_strict_maxima_that_reach_the_threshold():
    flow = np.array([9.0, 0.0, 0.05, 0.0, 0.1, 0.0, 2.0, 2.0, 0.0, 5.0])
    np.testing.assert_array_equal(av_align.video_peaks(flow, 2.0), [2.0])
    np.testing.assert_array_equal(av_align.video_peaks(flow, 2.0, threshold=0.0), [1.0, 2.0])


def test_finer_onsets_at_44_khz():
    coarse, fine = (av_align.audio_peaks(_audio(), RATE, rate_hz=rate) for rate in (22_050, 44_100))
    truth = np.array(EVENTS) / FPS
    assert np.abs(coarse - truth).max() < 512 * 3 / 22_050
    assert np.abs(fine - truth).max() < 512 * 3 / 44_100


def test_bad_clips_are_errors():
    with pytest.raises(ValueError, match="at least 2"):
        av_align.flow_trajectory(np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="one mono sound"):
        av_align.audio_peaks(np.zeros((2, 100), np.int16), RATE)
