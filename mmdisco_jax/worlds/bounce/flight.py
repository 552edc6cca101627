# SPDX-License-Identifier: Apache-2.0
"""Impact times from a ball's track, finer than a frame, by the world's ballistics.

Between impacts the height is a parabola of known gravity that starts and ends on the floor, so a
flight is fixed by its two impact times alone; the first and the last flight of a clip have one free
speed each. The impacts are those whose chain of flights fits the seen heights best: dynamic
programming over a grid of times finds the optimum. A frame's misfit is capped, so a wrong frame
costs a constant and a missing frame costs nothing.
"""

import functools

import numpy as np

from mmdisco_jax.worlds.bounce import physics
from mmdisco_jax.worlds.bounce.video import Track

STEP_SECONDS = 1 / 128  # the grid of impact times: rounding adds at most 4 ms
TOLERANCE_PIXELS = 0.5  # the misfit that counts 1 (squared)
OUTLIER_PIXELS = 2.0  # a larger misfit is a wrong frame and counts no more than this one
IMPACT_COST = 3.0  # what one more impact must explain, in squared tolerances
FLIGHT_SECONDS = (0.15, 1.30)  # the world's own range is .27 to 1.07 between impacts
SPEEDS = np.arange(8.0, 70.0, 1.0)  # impact speeds tried for the first and last flight, pixels / s
REACH_SECONDS = 2.5 / physics.FPS  # an impact needs a frame that fits this near on either side
MIN_FIT = 0.7  # the share of seen frames that must fit; below it the ball is not in free flight

_SEEN = np.arange(physics.NUM_FRAMES) / physics.FPS
_TIMES = np.arange(round(physics.CLIP_SECONDS / STEP_SECONDS)) * STEP_SECONDS


def video_impacts(track: Track) -> np.ndarray:
    """Detects the seconds, ascending float64 [n], at which a 16-frame track hits the floor.

    Empty when the ball is hardly seen or does not fly as this world's ball does.
    """
    if len(track.present) != physics.NUM_FRAMES:
        raise ValueError(f"{len(track.present)} frames; a bounce clip has {physics.NUM_FRAMES}")
    height = np.where(track.present, physics.CONTACT_Y - track.centre[:, 0], np.nan)
    impacts, fitted = _best_chain(height)
    fits = np.abs(height - fitted) < OUTLIER_PIXELS  # False where the ball was not seen
    if not len(impacts) or fits.sum() < MIN_FIT * track.present.sum():
        return np.zeros(0)
    return np.array([second for second in impacts if _supported(second, fits)])


def _supported(second: float, fits: np.ndarray) -> bool:
    """True if frames that fit lie within reach before and after an impact."""
    since = _SEEN[fits] - second
    before, after = since <= 0, since > 0
    near = np.abs(since) <= REACH_SECONDS
    return bool((before & near).any() and (after & near).any())


@functools.cache
def _tables() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Heights [p, f] (nan outside the flight) of every flight tried, and what each belongs to.

    (inner, its (start, end) indices [2, p]; first, its end index [p]; last, its start index [p]).
    """
    start, end = np.nonzero(
        (_TIMES[None] - _TIMES[:, None] >= FLIGHT_SECONDS[0])
        & (_TIMES[None] - _TIMES[:, None] <= FLIGHT_SECONDS[1])
    )
    since, until = _SEEN - _TIMES[start, None], _TIMES[end, None] - _SEEN
    inner = np.where((since > 0) & (until >= 0), 0.5 * physics.GRAVITY * since * until, np.nan)

    which = np.repeat(np.arange(len(_TIMES)), len(SPEEDS))
    speed = np.tile(SPEEDS, len(_TIMES))
    lasts = 2 * speed / physics.GRAVITY  # the whole flight; a clip shows only a part of it
    falls = (_TIMES[which] <= lasts) & (_TIMES[which] > 0) & (_TIMES[which] <= FLIGHT_SECONDS[1])
    until = _TIMES[which[falls], None] - _SEEN
    first = np.where(until >= 0, _parabola(until, speed[falls]), np.nan)

    rises = _SEEN[-1] - _TIMES[which] <= lasts
    since = _SEEN - _TIMES[which[rises], None]
    last = np.where(since > 0, _parabola(since, speed[rises]), np.nan)
    return inner, np.stack([start, end]), first, which[falls], last, which[rises]


def _parabola(seconds: np.ndarray, speed: np.ndarray) -> np.ndarray:
    return speed[:, None] * seconds - 0.5 * physics.GRAVITY * seconds**2


def _cost(flights: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Capped squared misfit of each flight, in squared tolerances; nan costs nothing."""
    misfit = np.minimum((flights - height) ** 2, OUTLIER_PIXELS**2)
    return np.nansum(misfit, 1) / TOLERANCE_PIXELS**2


def _best_chain(height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Impact times of the cheapest chain of flights, and its heights [f] (nan: no chain at all)."""
    inner, ends, first, first_end, last, last_start = _tables()
    size = len(_TIMES)
    between = np.full((size, size), np.inf)  # [end, start]
    between[ends[1], ends[0]] = _cost(inner, height)
    first_cost, last_cost = _cost(first, height), _cost(last, height)
    reach, tail = np.full(size, np.inf), np.full(size, np.inf)
    np.minimum.at(reach, first_end, first_cost)
    np.minimum.at(tail, last_start, last_cost)
    came_from = np.full(size, -1)
    for end in range(size):
        before = reach[:end] + between[end, :end]
        if end and before.min() < reach[end]:
            came_from[end] = before.argmin()
            reach[end] = before.min()
        reach[end] += IMPACT_COST
    now = int((reach + tail).argmin())
    if not reach[now] + tail[now] < _straight_cost(height):
        return np.zeros(0), np.full(len(height), np.nan)
    fitted = _pick(last, last_cost, last_start == now)
    chain = [now]
    while came_from[now] >= 0:
        now, later = int(came_from[now]), now
        chain.append(now)
        fitted = _overlay(fitted, inner[(ends[0] == now) & (ends[1] == later)][0])
    fitted = _overlay(fitted, _pick(first, first_cost, first_end == now))
    return _TIMES[chain[::-1]], fitted


def _straight_cost(height: np.ndarray) -> float:
    """Cost of the cheapest straight path, which a ball that lies, hangs or drifts takes.

    Impacts must explain more than it.
    """
    seen = np.flatnonzero(np.isfinite(height))
    if len(seen) < 2:
        return 0.0
    i, j = (seen[k] for k in np.triu_indices(len(seen), 1))
    slope = (height[j] - height[i]) / (j - i)
    lines = height[i, None] + slope[:, None] * (np.arange(len(height)) - i[:, None])
    return float(_cost(lines, height).min())


def _pick(flights: np.ndarray, cost: np.ndarray, among: np.ndarray) -> np.ndarray:
    """The cheapest of the flights marked in `among`."""
    return flights[np.flatnonzero(among)[cost[among].argmin()]]


def _overlay(below: np.ndarray, above: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(above), below, above)
