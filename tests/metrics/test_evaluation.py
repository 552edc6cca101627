# SPDX-License-Identifier: Apache-2.0
"""Evaluation of sets of clips: the report, its forms, and the same numbers as metric by metric."""

import io
import json
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mmdisco_jax.metrics import METRICS, api
from mmdisco_jax.metrics.evaluation import Report, evaluate
from tests.support.bounce_clips import batch_of

SETTINGS: dict[str, Any] = {"fps": 8, "sample_rate_hz": 16_000, "replicates": 20}
OWN = "tests.support.loudness:make"


def test_one_set_has_the_numbers_of_its_metrics(clips):
    batch = batch_of(clips[:4])
    report = evaluate(batch, metrics=("bounce", OWN), **SETTINGS)
    metric = METRICS.get("bounce")(api.Context(**SETTINGS))
    alone = metric.compute(metric.update(metric.init(), batch))
    assert list(report) == ["clips"] and report["clips"][: len(alone)] == alone
    assert report["clips"][-1].name == "loudness"
    assert report.value("f1_half_frame") == alone[0].value
    with pytest.raises(KeyError, match="no measure 'nothing'"):
        report.value("nothing")


def test_float_sound_is_measured_as_it_would_be_written(clips):
    batch = batch_of(clips[:2])
    floats = batch | {"audio": batch["audio"].astype(np.float32) / 32767}
    assert evaluate(batch, metrics=[OWN], **SETTINGS) == evaluate(floats, metrics=OWN, **SETTINGS)
    with pytest.raises(ValueError, match=r"audio of 'clips'.*NaN"):
        evaluate(batch | {"audio": np.full((2, 9), np.nan)}, metrics=OWN, **SETTINGS)


def test_several_sets_against_a_reference(clips):
    real, sets = batch_of(clips[:32]), {"a": batch_of(clips[32:48]), "b": batch_of(clips[:32])}
    report = evaluate(sets, metrics=("proxy_frechet_video",), reference=real, **SETTINGS)
    assert report.value("proxy_frechet_video", "b") < report.value("proxy_frechet_video", "a")
    with pytest.raises(KeyError, match=r"choose one of \['a', 'b'\]"):
        report.value("proxy_frechet_video")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metrics": ()}, "no metrics"),
        ({"metrics": ("nothing",)}, "unknown metric 'nothing'"),
        ({"metrics": ("proxy_kad_audio",)}, "real clips"),
        ({"clips": {}, "metrics": (OWN,)}, "there are no clips"),
        ({"clips": {"video": np.zeros(3)}, "metrics": (OWN,)}, "missing"),
    ],
)
def test_an_evaluation_that_cannot_be_made_says_why(clips, arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate(**({"clips": batch_of(clips[:1])} | arguments), **SETTINGS)


def _result(**changes) -> api.Result:
    fields = {"name": "a|b", "protocol": "p_v1", "value": 0.5, "low": 0.25, "high": 12.5, "n": 8}
    return api.Result(**(fields | changes))


def test_every_form_of_a_report_shows_all_of_it():
    rows = {"real": (_result(), _result(name="far", better="lower")), "mine": (_result(n=3),)}
    report = Report(rows=rows)
    assert str(report).splitlines() == [
        "measure             real (n=8)             mine (n=3)",
        "-------  ---------------------  ---------------------",
        "a|b ↑    0.500 [0.250, 12.500]  0.500 [0.250, 12.500]",
        "far ↓    0.500 [0.250, 12.500]",
        "value [95 % interval]; ↑ higher is better, ↓ lower is better",
        "protocols: p_v1",
    ]
    markdown = report.markdown().splitlines()
    assert markdown[0] == "| measure | real (n=8) | mine (n=3) |"
    assert markdown[1] == "| --- | ---: | ---: |"
    assert markdown[2] == "| a\\|b | 0.500 [0.250, 12.500] | 0.500 [0.250, 12.500] |"
    assert markdown[3] == "| far | 0.500 [0.250, 12.500] |  |"
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(report.terminal("a note"))
    text = console.export_text()
    assert all(part in text for part in ("a|b", "far", "real (n=8)", "[0.250, 12.500]", "a note"))
    stored = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert stored["mine"][0]["protocol"] == "p_v1" and len(stored["real"]) == 2
