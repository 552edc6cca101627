# SPDX-License-Identifier: Apache-2.0
"""Which marks of two kinds belong together, for drawing (scores come from `metrics`)."""

from collections.abc import Sequence


def match_times(
    first: Sequence[float], second: Sequence[float], tolerance: float
) -> list[tuple[int, int]]:
    """Index pairs (of first, of second) of times at most `tolerance` apart, all in one unit.

    No index is in two pairs, and no other such matching has more: on a line it is enough to go from
    early to late and drop the earlier of two times that are too far apart.
    """
    rows = sorted(range(len(first)), key=first.__getitem__)
    columns = sorted(range(len(second)), key=second.__getitem__)
    pairs, i, j = [], 0, 0
    while i < len(rows) and j < len(columns):
        gap = second[columns[j]] - first[rows[i]]
        if abs(gap) <= tolerance:
            pairs.append((rows[i], columns[j]))
        i, j = i + (gap >= -tolerance), j + (gap <= tolerance)
    return pairs
