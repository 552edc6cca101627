# SPDX-License-Identifier: Apache-2.0
"""Evaluation of sets of clips: the report, its forms, and the same numbers as metric by metric."""

import io
import json
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mmdisco_jax.metrics import METRICS, api
from mmdisco_jax.metrics.evaluation import evaluate
from mmdisco_jax.metrics.report import Report
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
    floats = batch | {"audio": batch["audio"].astype(np.float32) / 32768}
    assert evaluate(batch, metrics=[OWN], **SETTINGS) == evaluate(floats, metrics=OWN, **SETTINGS)
    with pytest.raises(ValueError, match=r"audio of 'clips'.*NaN"):
        evaluate(batch | {"audio": np.full((2, 9), np.nan)}, metrics=OWN, **SETTINGS)


def test_several_sets_against_a_reference(clips):
    real, sets = batch_of(clips[:32]), {"a": batch_of(clips[32:48]), "b": batch_of(clips[:32])}
    name = "proxy_frechet_video_v1"
    report = evaluate(sets, metrics=(name,), reference=real, **SETTINGS)
    assert report.value("proxy_frechet_video", "b") < report.value("proxy_frechet_video", "a")
    with pytest.raises(KeyError, match=r"choose one of \['a', 'b'\]"):
        report.value("proxy_frechet_video")


def test_what_cannot_be_measured_is_named_and_the_rest_is_there(clips):
    """Ten clips of a user's own: too few for a distance, enough for everything else."""
    names = ("proxy_frechet_video", OWN, "memorisation_audio", "tests.support.loudness:BROKEN")
    report = evaluate(
        {"real": batch_of(clips[5:10]), "mine": batch_of(clips[10:13])},
        metrics=names[:3],
        reference=batch_of(clips[:5]),
        **SETTINGS,
    )
    assert [r.name for r in report["mine"]] == [r.name for r in report["real"]] == ["loudness"]
    reasons = {one.name: one.reason for one in report.unmeasured}
    assert "5 reference clips are too few" in reasons["proxy_frechet_video"]
    assert "pass training" in reasons["memorisation_audio"]
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(report.terminal())
    for text in (str(report), report.markdown(), console.export_text()):
        assert "not measured: proxy_frechet_video: 5 reference clips are too few" in text
    with pytest.raises(ValueError, match="has no attribute 'BROKEN'"):
        evaluate(batch_of(clips[:1]), metrics=names, **SETTINGS)


def test_a_fault_of_a_metric_is_no_reason(clips, monkeypatch):
    def broken(*_):
        raise TypeError("a slip")

    monkeypatch.setattr("tests.support.loudness.Loudness.compute", broken)
    with pytest.raises(TypeError, match="a slip"):
        evaluate(batch_of(clips[:1]), metrics=OWN, **SETTINGS)


def test_variants_of_the_same_noise_are_compared_clip_by_clip(clips):
    """Each clip, and the same with its sound half a second late."""
    good = batch_of(clips[:24])
    late = good | {"audio": np.roll(good["audio"], 8_000, 1)}
    sets = {"good": good, "late": late, "few": batch_of(clips[:3])}
    settings: Any = SETTINGS | {"replicates": 200}
    report = evaluate(
        sets,
        metrics=("bounce", "proxy_frechet_audio_v1", OWN),
        reference=batch_of(clips[32:]),
        compare=[("late", "good"), ("few", "good")],
        **settings,
    )
    found = {(d.name, d.kind): d for d in report.differences}
    f1 = found["f1_half_frame", "-"]
    change = report.value("f1_half_frame", "late") - report.value("f1_half_frame", "good")
    assert f1.value == pytest.approx(change) and f1.is_clear and f1.high < -0.5
    assert found["colour_pitch", "-"].low == found["colour_pitch", "-"].high == 0
    ratio = found["proxy_frechet_audio", "/"]
    one, other = (report.value("proxy_frechet_audio", name) for name in ("late", "good"))
    assert ratio.value == pytest.approx(one / other) and 0 < ratio.low < ratio.value < ratio.high
    assert {u.name.partition(",")[0] for u in report.unmeasured} == {
        "bounce",
        "proxy_frechet_audio_v1",
    }
    assert "3 and 24 clips do not pair up" in report.unmeasured[0].reason
    header, body = report.difference_cells()
    assert header == ["measure", "late - good", "late / good"]
    assert body[0][1].endswith("*") and "f1_half_frame" in str(report)
    assert Report.of_record(json.loads(json.dumps(report.record()))) == report
    with pytest.raises(ValueError, match="names no set"):
        evaluate(sets, metrics=OWN, compare=[("late", "nothing")], **SETTINGS)


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
    console.print(Report(rows={"[/red]": rows["mine"]}).terminal("[/b]"))  # names are no markup
    assert "[/red] (n=3)" in console.export_text()
    stored = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert stored["mine"][0]["protocol"] == "p_v1" and len(stored["real"]) == 2
