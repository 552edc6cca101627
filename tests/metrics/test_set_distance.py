# SPDX-License-Identifier: Apache-2.0
"""Weight-free features and the set metrics built on them."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from mmdisco_jax.metrics import METRICS, api, features
from tests.support.bounce_clips import batch_of

DISTANCES = ("proxy_frechet_video", "proxy_frechet_audio", "proxy_kvd_video", "proxy_kad_audio")


def _value(name: str, reference: api.Batch, generated: api.Batch) -> float:
    metric = METRICS.get(name)(
        api.Context(fps=8, sample_rate_hz=16_000, reference=reference, replicates=5)
    )
    return metric.compute(metric.update(metric.init(), generated))[0].value


def test_projection_is_pca():
    rows = np.random.default_rng(0).standard_normal((50, 6)) * [5, 4, 3, 2, 1, 0.5]
    projection = features.fit(rows, dimensions=3)
    want = PCA(3).fit(rows)
    np.testing.assert_allclose(projection.axes @ projection.axes.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(np.abs(projection(rows)), np.abs(want.transform(rows)), atol=1e-9)


def test_projection_guards_its_size():
    rows = np.random.default_rng(0).standard_normal((30, 40))
    projection = features.fit(rows)
    with pytest.raises(ValueError, match="another length or size"):
        projection(rows[:, :5])
    with pytest.raises(ValueError, match="more than 24"):
        features.fit(rows[:10])


def test_large_frames_are_averaged_down():
    small = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32, 3)).astype(np.uint8)
    large = small.repeat(2, 2).repeat(2, 3)
    np.testing.assert_allclose(features.video_rows(large), features.video_rows(small))
    assert features.video_rows(small).min() >= -1
    assert features.video_rows(small).max() <= 1


def test_louder_sound_moves_the_log_mel_by_its_decibels():
    tone = (3000 * np.sin(np.arange(16_000) / 5)).astype(np.int16)[None]
    quiet, loud = (features.audio_rows(wave, 16_000) for wave in (tone, 10 * tone))
    heard = quiet > np.log10(features.MEL_FLOOR)
    np.testing.assert_allclose((loud - quiet)[heard], 1.0, atol=1e-4)


@pytest.mark.parametrize("name", DISTANCES)
def test_distance_to_itself_is_ideal_and_grows_with_damage(name, clips):
    real, held_out = batch_of(clips[:32]), batch_of(clips[32:])
    damaged = {"video": held_out["video"][:, ::-1], "audio": held_out["audio"][:, ::-1]}
    itself, floor, worse = (_value(name, real, x) for x in (real, held_out, damaged))
    assert itself <= 1e-6  # an unbiased discrepancy may be negative
    assert itself < floor < worse


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_copies_are_told_from_new_clips(modality, clips):
    real = batch_of(clips[:48])
    context = api.Context(fps=8, sample_rate_hz=16_000, reference=real, replicates=5)
    metric = METRICS.get(f"memorisation_{modality}")(context)
    for batch, nearest, copies in ((real, (0, 1e-9), 1.0), (batch_of(clips[48:]), (0.5, 2.0), 0.0)):
        got = {r.name: r.value for r in metric.compute(metric.update(metric.init(), batch))}
        assert nearest[0] <= got[f"nearest_{modality}"] <= nearest[1]
        assert got[f"copies_{modality}"] == copies


def test_duplicates_give_no_scale(clips):
    reference = batch_of(clips[:32] * 2)
    with pytest.raises(ValueError, match="duplicates"):
        METRICS.get("memorisation_video")(
            api.Context(fps=8, sample_rate_hz=16_000, reference=reference)
        )
