# SPDX-License-Identifier: Apache-2.0
"""Two lists of instants matched one to one, and the F1 that follows."""

from collections.abc import Sequence

import numpy as np

from mmdisco_jax.metrics import bootstrap


def match(left: np.ndarray, right: np.ndarray, tolerance_seconds: float) -> np.ndarray:
    """Index pairs int [k, 2] of as many one-to-one matches within the tolerance (inclusive) as
    exist.

    Both lists ascend. Taking the earliest possible pair each time is optimal because one tolerance
    holds for all: what the pair uses up could serve no later instant better.
    """
    if tolerance_seconds < 0:
        raise ValueError(f"tolerance_seconds={tolerance_seconds} must not be negative")
    for instants in (left, right):
        if np.any(np.diff(instants) < 0):
            raise ValueError(f"instants {instants} must ascend: sort them first")
    pairs, i, j = [], 0, 0
    while i < len(left) and j < len(right):
        if abs(left[i] - right[j]) <= tolerance_seconds:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif left[i] < right[j]:
            i += 1
        else:
            j += 1
    return np.array(pairs, int).reshape(-1, 2)


def temporal_f1(
    impacts: Sequence[np.ndarray],
    onsets: Sequence[np.ndarray],
    tolerance_seconds: float,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """(value, low, high) of F1 = 2 matches / (impacts + onsets), pooled over clips.

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
    """A random single cycle int [n]: no index stays in place (Sattolo, 1986)."""
    if n < 2:
        raise ValueError(f"{n} clip(s) cannot be mismatched: at least 2 are needed")
    rng = np.random.default_rng(seed)
    order = np.arange(n)
    for last in range(n - 1, 0, -1):
        other = rng.integers(last)
        order[last], order[other] = order[other], order[last]
    return order


def mismatched(audio: np.ndarray, seed: int) -> np.ndarray:
    """The same sounds [n, ...], each given to another clip: the control that keeps both
    marginals.
    """
    return audio[derangement(len(audio), seed)]
