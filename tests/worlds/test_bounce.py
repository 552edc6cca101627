# SPDX-License-Identifier: Apache-2.0
"""The bounce detectors against the simulator's truth: clean, degraded, and on what holds no
event.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from mmdisco_jax.codecs.log_mel import LogMel
from mmdisco_jax.metrics import api
from mmdisco_jax.worlds.bounce import audio as bounce_audio
from mmdisco_jax.worlds.bounce import flight as bounce_flight
from mmdisco_jax.worlds.bounce import measures as bounce
from mmdisco_jax.worlds.bounce import physics
from mmdisco_jax.worlds.bounce import video as bounce_video
from tests.support.bounce_calibration import calibration
from tests.support.bounce_clips import batch_of

WORLD = api.Context(fps=physics.FPS, sample_rate_hz=physics.SAMPLE_RATE_HZ)


def _values(results) -> dict[str, float]:
    return {result.name: result.value for result in results}


def test_real_clips_are_read_as_they_are(clips, seen):
    got = _values(calibration(clips, seen))
    for name in ("video_impacts_f1", "audio_onsets_f1", "colour_accuracy", "pitch_accuracy"):
        assert got[name] >= 0.99, name
    assert abs(got["video_impacts_bias_ms"]) < 2
    assert abs(got["audio_onsets_bias_ms"]) < 2


def test_ball_is_found_to_a_tenth_of_a_pixel(clips):
    for clip in clips[:16]:
        track = bounce_video.track_ball(clip.video)
        assert track.present.all()
        assert np.abs(physics.CONTACT_Y - track.centre[:, 0] - clip.height).max() < 0.1


def _blurred(video: np.ndarray, seed: int) -> np.ndarray:
    soft = ndimage.gaussian_filter(video.astype(float), (0, 1.2, 1.2, 0))
    noise = np.random.default_rng(seed).normal(0, 12, video.shape)
    return np.clip(np.rint(soft + noise), 0, 255).astype(np.uint8)


def test_blurred_and_noisy_balls_are_still_tracked(clips, seen):
    clips, seen = clips[:32], seen[:32]
    worse = [
        dataclasses.replace(
            one, impacts=bounce_flight.video_impacts(track), frames=track.present.sum()
        )
        for one, track in zip(
            seen,
            (bounce_video.track_ball(_blurred(c.video, i)) for i, c in enumerate(clips)),
            strict=True,
        )
    ]
    assert _values(calibration(clips, worse))["video_impacts_f1"] >= 0.97
    assert np.mean([one.frames for one in worse]) >= 0.95 * physics.NUM_FRAMES


def test_impacts_survive_jitter_and_missing_frames(clips, seen):
    rng = np.random.default_rng(0)
    worse = []
    for clip, one in zip(clips, seen, strict=True):
        y = physics.CONTACT_Y - clip.height + rng.normal(0, 0.5, physics.NUM_FRAMES)
        track = _track(physics.CONTACT_Y - y, present=rng.random(physics.NUM_FRAMES) >= 0.1)
        worse.append(dataclasses.replace(one, impacts=bounce_flight.video_impacts(track)))
    assert _values(calibration(clips, worse))["video_impacts_f1"] >= 0.97


def _track(height: np.ndarray, present: np.ndarray | None = None) -> bounce_video.Track:
    seen = np.ones(len(height), bool) if present is None else present
    centre = np.stack([physics.CONTACT_Y - height, np.full(len(height), 16.0)], 1)
    return bounce_video.Track(present=seen, centre=centre, colour=np.zeros(len(height), int))


@pytest.mark.parametrize(
    "height",
    [
        np.zeros(16),
        np.full(16, 5.0),
        np.linspace(15, 3, 16),
        np.random.default_rng(1).uniform(0, 18, 16),
        8 + 5 * np.sin(np.arange(16)),
    ],
    ids=["lies", "hangs", "drifts", "jumps about", "swings"],
)
def test_a_ball_that_does_not_fly_has_no_impact(height):
    assert len(bounce_flight.video_impacts(_track(height))) == 0


def test_a_ball_never_seen_has_no_impact():
    assert len(bounce_flight.video_impacts(_track(np.full(16, np.nan), np.zeros(16, bool)))) == 0


def _disc(radius: float, colour, stretch: float = 1.0) -> np.ndarray:
    """One frame with an ellipse instead of the world's ball."""
    grid = np.arange(physics.FRAME_SIZE) + 0.5
    distance = np.hypot((grid[:, None] - 15) / stretch, (grid - 16) * stretch)
    frame = physics.render(np.array([-99.0]), np.array([-99.0]), physics.COLOURS[0])[0].copy()
    frame[distance < radius] = colour
    return frame


def test_only_the_worlds_ball_counts():
    red = physics.COLOURS[0]
    good = _disc(physics.RADIUS, red)
    bad = [
        _disc(0, red),
        _disc(3.0, red),
        _disc(8.0, red),
        _disc(physics.RADIUS, red, stretch=1.6),
        _disc(physics.RADIUS, (200, 200, 200)),
        np.random.default_rng(0).integers(0, 256, good.shape).astype(np.uint8),
    ]
    track = bounce_video.track_ball(np.stack([good, *bad]))
    assert track.present.tolist() == [True] + [False] * len(bad)
    assert track.colour[0] == 0
    np.testing.assert_allclose(track.centre[0], (15, 16), atol=0.05)


def test_a_flickering_colour_is_undetectable(clips):
    track = bounce_video.track_ball(clips[0].video)
    half = dataclasses.replace(track, colour=np.arange(16) % 2)
    assert track.clip_colour() == clips[0].colour
    assert half.clip_colour() == -1


def test_onsets_survive_the_codecs_griffin_lim(clips, seen):
    some = 8
    codec = LogMel(
        sample_rate_hz=16_000,
        num_frames=64,
        num_mels=32,
        hop_length=500,
        n_fft=1024,
        low=-2.5,
        high=1.0,
        griffin_lim_steps=16,
    )
    waves = codec.decode(codec.encode(jnp.asarray(batch_of(clips[:some])["audio"])))
    worse = []
    for wave, one in zip(waves, seen, strict=False):
        onsets, pitches = bounce_audio.audio_onsets(wave)
        worse.append(
            dataclasses.replace(one, onsets=onsets, pitch=bounce_audio.clip_pitch(pitches))
        )
    got = _values(calibration(clips[:some], worse))
    assert got["audio_onsets_f1"] >= 0.95
    assert got["pitch_accuracy"] == 1.0


def test_noise_hum_and_silence_ring_at_no_time():
    rng = np.random.default_rng(0)
    second = np.arange(physics.NUM_SAMPLES) / physics.SAMPLE_RATE_HZ
    for wave in (
        0 * second,
        0.5 * np.sin(2 * np.pi * 750 * second),
        0.1 * rng.standard_normal(len(second)),
    ):
        onsets, pitches = bounce_audio.audio_onsets(wave)
        assert len(onsets) == len(pitches) == 0
    assert bounce_audio.clip_pitch(pitches) == -1


def test_real_pairs_agree_and_mismatched_ones_do_not(seen):
    metric = bounce.make(WORLD)
    got = _values(metric.compute(bounce.rows(seen)))
    assert got["f1_half_frame"] >= 0.97
    assert got["f1_one_frame"] >= got["f1_half_frame"]
    assert got["colour_pitch"] == got["ball_presence"] == 1.0
    # Chance: about .2, .4 and .25; four standard errors at 64 clips.
    assert 0.05 < got["f1_half_frame_mismatched"] < 0.40
    assert 0.20 < got["f1_one_frame_mismatched"] < 0.60
    assert 0.03 < got["colour_pitch_mismatched"] < 0.47


def test_broken_sides_count_against_the_score(clips):
    silent = batch_of(clips[:8])
    silent["audio"] = np.zeros_like(silent["audio"])
    metric = bounce.make(WORLD)
    got = _values(metric.compute(metric.update(metric.init(), silent)))
    assert got["f1_half_frame"] == got["colour_pitch"] == 0.0
    assert got["ball_presence"] == 1.0


def test_bad_input_is_an_error():
    with pytest.raises(ValueError, match="uint8"):
        bounce_video.track_ball(np.zeros((16, 32, 32, 3)))
    with pytest.raises(ValueError, match="32000"):
        bounce_audio.audio_onsets(np.zeros(100))
    with pytest.raises(ValueError, match="not finite"):
        bounce_audio.audio_onsets(np.full(32_000, np.nan))
    with pytest.raises(ValueError, match="has 16"):
        bounce_flight.video_impacts(_track(np.zeros(8)))
    with pytest.raises(ValueError, match="one world only"):
        bounce.make(dataclasses.replace(WORLD, fps=10))
    with pytest.raises(ValueError, match="one report a clip"):
        calibration([], [])
