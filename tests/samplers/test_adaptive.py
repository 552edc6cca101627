# SPDX-License-Identifier: Apache-2.0
"""The adaptive solver: tolerance, cost, and what a sample's step sizes depend on."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmdisco_jax.process.schedules import linear, scaled_linear
from mmdisco_jax.samplers.adaptive import Adaptive, sample_adaptive
from tests.support.gaussian_worlds import Continuous

WORLD = Continuous(linear())
X_T = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)


def _run(x_T, **options):
    """(samples [b 4] of one modality, report)."""
    solver = Adaptive(model_time="continuous", **options)

    def run(x):
        return sample_adaptive(WORLD.eps, {"x": x}, {"x": WORLD.schedule}, solver)

    x, report = jax.jit(run)(jnp.asarray(x_T))
    return np.asarray(x["x"]), report


@pytest.mark.parametrize(("prediction", "order"), [("x0", 2), ("eps", 3)])
def test_a_larger_tolerance_costs_less_and_is_kept(prediction, order):
    calls = []
    for tolerance in (1e-4, 1e-3, 1e-2)[order - 2 :]:
        options = {"prediction": prediction, "order": order}
        x, report = _run(X_T, atol=tolerance, rtol=tolerance, **options)
        assert report.finished.all()
        # Steps' errors add up to a few tolerances, and noise prediction magnifies early ones.
        share = 5 if prediction == "x0" else 20
        assert np.abs(x - WORLD.flow(X_T)).max() < share * tolerance
        calls.append(int(report.num_evaluations.sum()))
    assert all(more > 1.3 * fewer for more, fewer in itertools.pairwise(calls))


def test_a_sample_does_not_depend_on_its_batch_unless_asked():
    x_T = X_T * np.array([1, 1, 1, 1, 1, 4], np.float32)[:, None]  # the last one is difficult
    batch, report = _run(x_T)
    alone, one = _run(x_T[:1])
    np.testing.assert_allclose(batch[0], alone[0], rtol=1e-5, atol=1e-5)
    assert report.num_evaluations[0] == one.num_evaluations[0] < report.num_evaluations.max()
    together, report = _run(x_T, per="batch")
    assert len(set(np.asarray(report.num_evaluations).tolist())) == 1
    assert np.abs(together[0] - alone[0]).max() > 1e-4


def test_pairs_step_together_and_the_worse_modality_decides():
    """Two schedules; an entry that needs small steps makes the other accurate too."""
    schedules = {"audio": linear(), "video": scaled_linear(1000, 0.00085, 0.012)}
    worlds = {m: Continuous(s, std=1.0 if m == "audio" else 0.5) for m, s in schedules.items()}

    def denoise(x, t, cond):
        return {m: worlds[m].eps({m: v}, t)[m] for m, v in x.items()}

    solver = Adaptive(model_time="continuous")
    run = jax.jit(lambda x: sample_adaptive(denoise, x, schedules, solver))
    pair, report = run({m: jnp.asarray(X_T) for m in schedules})
    _, easy = run({"audio": jnp.asarray(X_T)})
    assert report.num_evaluations.sum() > easy.num_evaluations.sum()
    for m in pair:
        assert np.abs(pair[m] - worlds[m].flow(X_T)).max() < 0.1


def test_what_cannot_be_finished_is_told_and_ends():
    _, report = _run(X_T, max_evaluations=6)
    assert not report.finished.any() and (report.num_evaluations == 6).all()
    x_T = X_T.copy()
    x_T[2, 0] = np.nan
    x, report = _run(x_T)
    assert np.asarray(report.finished).tolist() == [True, True, False, True, True, True]
    assert np.isfinite(np.delete(x, 2, axis=0)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": 1}, "order is 1: choose one of 2, 3"),
        ({"per": "element"}, "per is 'element': choose one of sample, batch"),
        ({"atol": 0.0}, "atol must be positive, is 0.0"),
        ({"quantile": 0.9}, "give a clip"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Adaptive(**options)
