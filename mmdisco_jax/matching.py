# SPDX-License-Identifier: Apache-2.0
"""One-to-one matching of two lists of times, for scores (`metrics`) and drawings (`export`)."""

from collections.abc import Sequence


def match_times(
    first: Sequence[float], second: Sequence[float], tolerance: float
) -> list[tuple[int, int]]:
    """The largest one-to-one matching of times that are at most `tolerance` apart.

    On a line it is enough to go from early to late and drop the earlier of two times that are too
    far apart: what a pair uses up could serve no later time better.

    Args:
      first, second: times in any order, all in one unit.
      tolerance: how far apart a pair may be, inclusive; in the same unit, >= 0.

    Returns:
      Pairs (index into `first`, index into `second`), from early to late; no index twice.

    Raises:
      ValueError: a negative tolerance.
    """
    if tolerance < 0:
        raise ValueError(f"tolerance={tolerance} must not be negative")
    rows = sorted(range(len(first)), key=first.__getitem__)
    columns = sorted(range(len(second)), key=second.__getitem__)
    pairs, i, j = [], 0, 0
    while i < len(rows) and j < len(columns):
        gap = second[columns[j]] - first[rows[i]]
        if abs(gap) <= tolerance:
            pairs.append((rows[i], columns[j]))
        i, j = i + (gap >= -tolerance), j + (gap <= tolerance)
    return pairs
