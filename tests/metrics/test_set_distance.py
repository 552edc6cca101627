# SPDX-License-Identifier: Apache-2.0
"""Weight-free features and the set metrics built on them."""

from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA

from mmdisco_jax.io import to_uint8
from mmdisco_jax.metrics import METRICS, api, features
from mmdisco_jax.metrics.evaluation import evaluate
from mmdisco_jax.worlds.bounce import physics
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


def test_what_lies_outside_the_axes_is_one_more_feature():
    rows = np.random.default_rng(0).standard_normal((50, 30)) * np.linspace(3, 0.1, 30)
    plain, projection = features.fit(rows, 4), features.fit_with_outside(rows, 4)
    found = projection(rows)
    assert found.shape == (50, 5) and projection.width == 5
    np.testing.assert_allclose(found[:, :4], plain(rows))
    rest = rows - rows.mean(0) - plain(rows) @ plain.axes
    lengths = np.linalg.norm(rest, axis=1)
    np.testing.assert_allclose(found[:, 4], lengths - lengths.mean(), atol=1e-9)
    apart = np.linalg.norm(rows[:1] - rows, axis=1)
    assert (np.linalg.norm(found[:1] - found, axis=1) <= apart + 1e-9).all()


@pytest.fixture(scope="module")
def many() -> api.Batch:
    return batch_of([physics.simulate(9, i) for i in range(180)])


def _part(batch: api.Batch, first: int, last: int) -> dict[str, np.ndarray]:
    return {m: x[first:last] for m, x in batch.items()}


def test_clips_without_their_fine_motion_are_seen_by_version_2_alone(many):
    """Held-out real clips on the reference's 24 axes: two fifths of their variance is gone."""
    reference, held_out = _part(many, 0, 120), _part(many, 120, 180)
    axes = features.fit(features.video_rows(reference["video"]))
    rows = features.video_rows(held_out["video"])
    flat = axes.mean + axes(rows) @ axes.axes
    assert ((rows - flat) ** 2).sum() > 0.4 * ((rows - rows.mean(0)) ** 2).sum()
    pixels = to_uint8(flat.reshape(held_out["video"].shape).clip(-1, 1))
    worse = {"video": pixels, "audio": held_out["audio"]}
    report = evaluate(
        {"real": held_out, "worse": worse},
        metrics=("proxy_frechet_video_v1", "proxy_frechet_video"),
        reference=reference,
        compare=[("worse", "real")],
        fps=8,
        sample_rate_hz=16_000,
        replicates=100,
    )
    old, new = report["real"]
    old_worse, new_worse = report["worse"]
    assert (old.protocol, new.protocol) == ("proxy_frechet_video_v1", "proxy_frechet_video_v2")
    assert old_worse.value < 1.1 * old.value
    assert new_worse.value > 1.5 * new.value
    assert all(d.is_clear and d.value > 0 for d in report.differences[-2:])


@pytest.mark.parametrize("name", DISTANCES)
def test_distances_below_their_number_of_features_are_refused(name, many):
    settings: Any = {"fps": 8, "sample_rate_hz": 16_000}
    with pytest.raises(ValueError, match=r"51 reference clips are too few.*give 52 or more"):
        METRICS.get(name)(api.Context(reference=_part(many, 0, 51), **settings))
    metric = METRICS.get(name)(api.Context(reference=_part(many, 0, 52), replicates=5, **settings))
    with pytest.raises(ValueError, match="25 clips are too few for 25 features: make 26 or more"):
        metric.compute(metric.update(metric.init(), _part(many, 60, 85)))
    (result,) = metric.compute(metric.update(metric.init(), _part(many, 60, 86)))
    assert result.n == 26 and result.note == "compared with 26 real clips"


def test_sets_of_different_size_are_compared_at_one(many):
    sets = {"real": _part(many, 60, 120), "mine": _part(many, 120, 150), "few": _part(many, 0, 5)}
    report = evaluate(
        sets,
        metrics=("proxy_frechet_audio", "proxy_frechet_audio_v1"),
        reference=_part(many, 0, 60),
        fps=8,
        sample_rate_hz=16_000,
        replicates=5,
    )
    assert [r.n for r in report["real"]] == [30, 60]
    assert [r.n for r in report["mine"]] == [30, 30]
    first, second = (r.protocol for r in report["mine"])
    assert (first, second) == ("proxy_frechet_audio_v2", "proxy_frechet_audio_v1")
    assert [(u.name, u.on) for u in report.unmeasured] == [("proxy_frechet_audio", "few")]
    table = {row[0].split()[1]: row[1:] for row in report.cells()[1]}
    new, old = table["(proxy_frechet_audio_v2)"], table["(proxy_frechet_audio_v1)"]
    assert new[0].endswith(", n=30") and new[2] == ""
    assert not any("n=" in cell for cell in (new[1], *old))
    with pytest.raises(KeyError, match="no measure 'proxy_frechet_audio' of mine"):
        report.value("proxy_frechet_audio", "mine")  # of which version?


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("version", ["_v1", ""])
def test_distance_to_itself_is_ideal_and_grows_with_damage(name, version, many):
    real, held_out = _part(many, 0, 60), _part(many, 60, 120)
    if not version:  # the second half is what is compared with
        itself = _value(name, real, _part(many, 30, 60))
    else:
        itself = _value(name + version, real, real)
    damaged = {"video": held_out["video"][:, ::-1], "audio": held_out["audio"][:, ::-1]}
    floor, worse = (_value(name + version, real, x) for x in (held_out, damaged))
    assert itself <= 1e-6  # an unbiased discrepancy may be negative
    assert itself < floor < worse


def test_the_scale_of_a_kernel_is_not_set_by_the_clips_it_compares_with(many):
    """Units of the reference itself would vary with it, and the interval would not know."""
    first, second = _part(many, 0, 40), _part(many, 40, 80)
    louder = {"video": second["video"], "audio": (second["audio"] // 4)}
    both = ({m: np.concatenate([first[m], x[m]]) for m in first} for x in (second, louder))
    metrics = [
        METRICS.get("proxy_kad_audio")(
            api.Context(fps=8, sample_rate_hz=16_000, reference=batch, replicates=5)
        )
        for batch in both
    ]
    rows = metrics[0].update(metrics[0].init(), _part(many, 80, 120))["rows"]
    fixed, same = (metric.distance(metrics[0].reference, rows)[0] for metric in metrics)
    assert fixed == pytest.approx(same)
