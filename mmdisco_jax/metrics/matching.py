# SPDX-License-Identifier: Apache-2.0
"""F1 of events matched in time, and derangements that mismatch the pairs of a set."""

from collections.abc import Sequence

import numpy as np

from mmdisco_jax.matching import match_times
from mmdisco_jax.metrics import bootstrap


def match(left: np.ndarray, right: np.ndarray, tolerance_seconds: float) -> np.ndarray:
    """Largest one-to-one matching of ascending seconds, as index pairs int [k, 2].

    See `match_times`; the tolerance is inclusive.

    Raises:
      ValueError: a negative tolerance, or seconds that do not ascend.
    """
    for instants in (left, right):
        if np.any(np.diff(instants) < 0):
            raise ValueError(f"instants {instants} must ascend: sort them first")
    return np.array(match_times(left.tolist(), right.tolist(), tolerance_seconds), int).reshape(
        -1, 2
    )


def temporal_f1(
    impacts: Sequence[np.ndarray],
    onsets: Sequence[np.ndarray],
    tolerance_seconds: float,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """F1 = 2 matches / (impacts + onsets) pooled over clips, as (value, low, high).

    One array of seconds a clip in each list. Pooling weighs every event alike: a clip with no event
    on one side lowers the score by its unmatched events, one with none on either side does not
    count, and a set without any event scores 0, since nothing was shown to align.
    """
    if len(impacts) != len(onsets):
        raise ValueError(
            f"{len(impacts)} clips of impacts, {len(onsets)} of onsets: lists must pair up"
        )
    hits = [len(match(a, b, tolerance_seconds)) for a, b in zip(impacts, onsets, strict=True)]
    events = [len(a) + len(b) for a, b in zip(impacts, onsets, strict=True)]
    return bootstrap.ratio(2.0 * np.array(hits), np.array(events), replicates=replicates, seed=seed)


def derangement(n: int, seed: int) -> np.ndarray:
    """Random permutation int [n] that moves every index, a single cycle (Sattolo, 1986).

    `sounds[derangement(n, seed)]` are the sounds of mismatched pairs: each is still there, and each
    beside another clip's picture. ValueError below 2 clips.
    """
    if n < 2:
        raise ValueError(f"{n} clip(s) cannot be mismatched: at least 2 are needed")
    rng = np.random.default_rng(seed)
    order = np.arange(n)
    for last in range(n - 1, 0, -1):
        other = rng.integers(last)
        order[last], order[other] = order[other], order[last]
    return order
