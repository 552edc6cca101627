# SPDX-License-Identifier: Apache-2.0
"""Accuracy of the bounce detectors on real clips, against the simulator's truth."""

from collections.abc import Sequence

import numpy as np

from mmdisco_jax.metrics import api, bootstrap, matching
from mmdisco_jax.worlds.bounce import physics
from mmdisco_jax.worlds.bounce.measures import TOLERANCES, Seen

PROTOCOL = "bounce_calibration_v1"


def calibration(
    clips: Sequence[physics.BounceClip], seen: Sequence[Seen]
) -> tuple[api.Result, ...]:
    """F1, precision, recall and bias of impacts and onsets, and accuracy of colour and pitch.

    seen[i] is what the detectors report of clips[i], or of what became of it (a codec's round
    trip). Bias is the mean of detected minus true time in milliseconds over matches within half a
    frame.
    """
    if len(clips) != len(seen) or not clips:
        raise ValueError(
            f"{len(clips)} clips, {len(seen)} reports: one report a clip, at least one"
        )
    truth = [clip.impact_seconds for clip in clips]
    results = []
    for name, times in (
        ("video_impacts", [s.impacts for s in seen]),
        ("audio_onsets", [s.onsets for s in seen]),
    ):
        results += _timing(name, times, truth)
    for name, classes in (("colour", [s.colour for s in seen]), ("pitch", [s.pitch for s in seen])):
        right = np.array([clip.colour for clip in clips]) == np.array(classes)
        results.append(_result(f"{name}_accuracy", right, None))
    return tuple(results)


def _timing(name: str, times: list[np.ndarray], truth: list[np.ndarray]) -> list[api.Result]:
    tolerance = TOLERANCES["half_frame"]
    pairs = [matching.match(a, b, tolerance) for a, b in zip(times, truth, strict=True)]
    hits = np.array([len(p) for p in pairs], float)
    found, real = (np.array([len(x) for x in lists], float) for lists in (times, truth))
    late = [
        1e3 * (a[p[:, 0]] - b[p[:, 1]]).sum() for a, b, p in zip(times, truth, pairs, strict=True)
    ]
    return [
        _result(f"{name}_f1", 2 * hits, found + real),
        _result(f"{name}_precision", hits, found),
        _result(f"{name}_recall", hits, real),
        _result(f"{name}_bias_ms", np.array(late), hits, better="neither"),
    ]


def _result(
    name: str, above: np.ndarray, below: np.ndarray | None, better: str = "higher"
) -> api.Result:
    value, low, high = bootstrap.ratio(above, below, replicates=1000, seed=0)
    return api.Result(
        name=name, protocol=PROTOCOL, value=value, low=low, high=high, n=len(above), better=better
    )
