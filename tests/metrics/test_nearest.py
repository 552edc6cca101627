# SPDX-License-Identifier: Apache-2.0
"""Copies of training clips are found: exact, mirrored, and nothing else."""

import pytest

from mmdisco_jax.metrics import METRICS, api
from mmdisco_jax.metrics.evaluation import evaluate
from mmdisco_jax.worlds.bounce import physics
from tests.support.bounce_clips import batch_of

NAMES = ("memorisation_video", "memorisation_audio")


@pytest.fixture(scope="module")
def training():
    return batch_of([physics.simulate(7, i) for i in range(128)])


@pytest.fixture(scope="module")
def context(training, clips):
    halves = [{m: x[part] for m, x in training.items()} for part in (slice(80), slice(80, 128))]
    return api.Context(
        fps=8,
        sample_rate_hz=16_000,
        reference=batch_of(clips[:32]),
        training=halves,
        replicates=20,
    )


def measured(name: str, context: api.Context, batch: api.Batch) -> dict[str, api.Result]:
    metric = METRICS.get(name)(context)
    results = metric.compute(metric.update(metric.init(), batch))
    return {r.name.partition("_")[0]: r for r in results}


@pytest.mark.parametrize("name", NAMES)
def test_copies_of_training_clips_are_copies_and_held_out_clips_are_not(
    name, context, training, clips
):
    found = measured(name, context, training)
    assert found["copies"].value == 1.0
    assert found["nearest"].value < 1e-3
    assert found["copies"].detail == {"n_searched": 128.0}
    assert found["nearest"].note.startswith("128 training clips searched")
    held_out = measured(name, context, batch_of(clips[32:]))
    assert held_out["copies"].value == 0.0
    assert 0.7 < held_out["nearest"].value < 1.4


def test_a_mirrored_copy_is_a_copy(context, training):
    mirrored = training | {"video": training["video"][:, :, :, ::-1]}
    assert measured("memorisation_video", context, mirrored)["copies"].value == 1.0


def test_one_training_clip_is_enough_to_be_copied(context, training, clips):
    one = {m: x[:1] for m, x in training.items()}
    small = api.Context(
        fps=8, sample_rate_hz=16_000, reference=batch_of(clips[:4]), training=[one], replicates=20
    )
    assert measured("memorisation_video", small, one)["copies"].value == 1.0
    assert measured("memorisation_video", small, batch_of(clips[4:8]))["copies"].value == 0.0


def test_clips_that_were_read_up_by_another_metric_are_not_none_searched(training, clips):
    """An iterator is empty for the second metric, which must not report that nothing was copied."""
    report = evaluate(
        training,
        metrics=NAMES,
        fps=8,
        sample_rate_hz=16_000,
        reference=batch_of(clips[:32]),
        training=iter([training]),
        replicates=20,
    )
    assert report.value("copies_video") == 1.0
    (missing,) = report.unmeasured
    assert missing.name == "memorisation_audio" and "empty after the first" in missing.reason


def test_held_out_clips_that_are_training_clips_give_no_scale(context, training):
    leaking = {m: x[:32] for m, x in training.items()}
    with pytest.raises(ValueError, match="copies of training clips"):
        METRICS.get("memorisation_video")(
            api.Context(fps=8, sample_rate_hz=16_000, reference=leaking, training=context.training)
        )


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_version_1_searches_the_reference(modality, clips):
    real = batch_of(clips[:48])
    context = api.Context(fps=8, sample_rate_hz=16_000, reference=real, replicates=5)
    name = f"memorisation_{modality}_v1"
    for batch, nearest, copies in ((real, (0, 1e-9), 1.0), (batch_of(clips[48:]), (0.5, 2.0), 0.0)):
        got = measured(name, context, batch)
        assert got["nearest"].protocol == name
        assert nearest[0] <= got["nearest"].value <= nearest[1]
        assert got["copies"].value == copies
    with pytest.raises(ValueError, match="duplicates"):
        METRICS.get(name)(
            api.Context(fps=8, sample_rate_hz=16_000, reference=batch_of(clips[:32] * 2))
        )


def test_without_training_clips_they_are_asked_for(clips):
    with pytest.raises(ValueError, match="pass training"):
        METRICS.get("memorisation_video")(
            api.Context(fps=8, sample_rate_hz=16_000, reference=batch_of(clips[:4]))
        )
