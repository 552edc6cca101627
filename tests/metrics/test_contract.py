# SPDX-License-Identifier: Apache-2.0
"""Contract of every registered metric, and of one that is named by its place."""

import dataclasses
import json
import re

import numpy as np
import pytest

from mmdisco_jax.metrics import METRICS, api
from tests.support.bounce_clips import batch_of

OWN = "tests.support.loudness:make"  # as a user's own metric is named
CONTEXT = api.Context(fps=8, sample_rate_hz=16_000, replicates=20)


@pytest.fixture(scope="module")
def batches(clips):
    """Three batches of unequal size."""
    return [batch_of(clips[a:b]) for a, b in ((0, 1), (1, 4), (4, 6))]


@pytest.fixture(scope="module", params=[*METRICS.names(), OWN])
def metric(request, clips):
    context = dataclasses.replace(CONTEXT, reference=batch_of(clips[32:]))
    return METRICS.get(request.param)(context)


def test_merging_is_associative_and_commutative_and_equals_updating(metric, batches):
    a, b, c = (metric.update(metric.init(), batch) for batch in batches)
    left = metric.compute(metric.merge(metric.merge(a, b), c))
    right = metric.compute(metric.merge(a, metric.merge(b, c)))
    turned = metric.compute(metric.merge(metric.merge(c, metric.init()), metric.merge(b, a)))
    state = metric.init()
    for batch in batches:
        state = metric.update(state, batch)
    assert left == right == turned == metric.compute(state)
    assert left[0].n == 6


def test_results_are_named_bounded_and_strict_json(metric, batches):
    results = metric.compute(metric.update(metric.init(), batches[1]))
    assert len({result.name for result in results}) == len(results)
    for result in results:
        assert re.fullmatch(r"[a-z_]+_v\d+", result.protocol)
        assert result.low <= result.value + 1e-9
        assert result.value <= result.high + 1e-9
        assert json.loads(json.dumps(result.to_json(), allow_nan=False))["value"] == result.value


def test_update_leaves_its_arguments_alone(metric, batches):
    state = metric.update(metric.init(), batches[0])
    kept = {key: value.copy() for key, value in state.items()}
    metric.update(state, batches[1])
    for key, value in kept.items():
        np.testing.assert_array_equal(state[key], value)


def test_no_clip_and_bad_batches_are_errors(metric, batches):
    with pytest.raises(ValueError, match="seen no clip"):
        metric.compute(metric.init())
    good = batches[1]
    for bad, message in (
        ({"video": good["video"]}, "missing"),
        (good | {"video": good["video"] / 255}, "uint8"),
        (good | {"audio": good["audio"] / 32768}, "int16"),
        (good | {"audio": good["audio"][:1]}, "pairs"),
    ):
        with pytest.raises(ValueError, match=message):
            metric.update(metric.init(), bad)


def test_a_metric_of_two_sets_asks_for_the_reference():
    with pytest.raises(ValueError, match="Context\\(reference"):
        METRICS.get("proxy_frechet_video")(CONTEXT)


def test_states_of_different_metrics_do_not_merge():
    with pytest.raises(ValueError, match="different metrics"):
        api.merge_rows({"a": np.zeros((0, 1))}, {"b": np.zeros((0, 1))})


def test_context_refuses_impossible_rates():
    with pytest.raises(ValueError, match="fps=0 must be positive"):
        api.Context(fps=0, sample_rate_hz=16_000)


def _result(**changes) -> api.Result:
    fields = {"name": "a|b", "protocol": "p_v1", "value": 0.5, "low": 0.25, "high": 12.5, "n": 8}
    return api.Result(**(fields | changes))


def test_json_has_no_nan():
    assert _result(value=float("nan")).to_json()["value"] is None


def test_weights_and_prompts_are_asked_for_by_name():
    context = dataclasses.replace(CONTEXT, weights={"net": "a.safetensors"}, prompts=("a dog",))
    assert context.require_weights("net") == "a.safetensors"
    assert context.require_prompts("net") == ("a dog",)
    with pytest.raises(ValueError, match=r"weights=\{'other'"):
        context.require_weights("other")
    with pytest.raises(ValueError, match="pass prompts"):
        CONTEXT.require_prompts("net")
