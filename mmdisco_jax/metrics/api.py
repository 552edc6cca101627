# SPDX-License-Identifier: Apache-2.0
"""Metric protocol: `init`, `update`, `merge` (in any order), `compute`; context and results.

    state = metric.update(metric.init(), batch)      # once a batch, on any host
    state = metric.merge(state, other_host_state)
    results = metric.compute(state)

A state is a dict of numpy arrays with one row a clip, so that merging is concatenation and every
interval is a bootstrap over clips. `compute` puts the rows in a canonical order first: the result,
interval included, does not depend on how clips were batched or merged.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

State = dict[str, np.ndarray]
# Raw clips: "video" uint8 [b, f, h, w, 3], "audio" int16 [b, samples] (mono).
Batch = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Context:
    """Facts about the clips that a metric will see; every metric is built from one.

    fps: frames a second. sample_rate_hz: audio samples a second. reference: real clips, needed by
    the metrics that compare two sets and by no other. weights: paths of weight files by metric
    name, for the metrics that are networks. prompts: the text of each clip, in the order in which
    they are given to `update`, for the metrics that read it. replicates, seed: of the bootstrap.
    """

    fps: float
    sample_rate_hz: int
    reference: Batch | None = None
    weights: Mapping[str, str] = dataclasses.field(default_factory=dict)
    prompts: Sequence[str] | None = None
    replicates: int = 1000
    seed: int = 0

    def __post_init__(self):
        for name in ("fps", "sample_rate_hz", "replicates"):
            value = getattr(self, name)
            if not value > 0:
                raise ValueError(f"{name}={value!r} must be positive")

    def require_reference(self, metric: str) -> Batch:
        """Reference clips; ValueError if there are none."""
        if self.reference is None:
            raise ValueError(
                f"metric {metric!r} compares with real clips: pass Context(reference=batch)"
            )
        return self.reference

    def require_weights(self, metric: str) -> str:
        """Path of the metric's weight file, or ValueError if none was named."""
        if metric not in self.weights:
            raise ValueError(
                f"metric {metric!r} is a network and needs its weights: pass "
                f"weights={{{metric!r}: 'path of the file'}}"
            )
        return self.weights[metric]

    def require_prompts(self, metric: str) -> Sequence[str]:
        """The text of each clip, or ValueError if there is none."""
        if self.prompts is None:
            raise ValueError(
                f"metric {metric!r} reads the text of each clip: pass prompts=[...], one a clip"
            )
        return self.prompts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """One number that can be compared with another of the same `protocol`, and only with that.

    value: the point estimate. low, high: bounds of its 95 % bootstrap interval over clips.
    n: clips the value rests on. better: "higher", "lower" or "neither". detail: counts worth
    keeping.
    """

    name: str
    protocol: str
    value: float
    low: float
    high: float
    n: int
    better: str = "higher"
    detail: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Converts to a dict that strict JSON can hold: numbers that are not finite become None."""
        fields = dataclasses.asdict(self)
        fields["detail"] = {key: _finite(value) for key, value in self.detail.items()}
        return {key: _finite(value) for key, value in fields.items()}


class Metric(Protocol):
    """Measurement of a set of clips under a named and versioned protocol."""

    @property
    def protocol(self) -> str:
        """Name and version, e.g. `av_align_v2`; a change of definition is a new one."""
        ...

    def init(self) -> State:
        """Makes the state of no clips, the identity of `merge`."""
        ...

    def update(self, state: State, batch: Batch) -> State:
        """Adds the clips of `batch` to `state`; neither argument is changed."""
        ...

    def merge(self, left: State, right: State) -> State:
        """Merges two states; associative, and commutative up to the order of rows."""
        ...

    def compute(self, state: State) -> tuple[Result, ...]:
        """Computes the results; ValueError when the state holds no clip."""
        ...


def merge_rows(left: State, right: State) -> State:
    """Concatenates two states row by row."""
    if left.keys() != right.keys():
        raise ValueError(f"states of different metrics: {sorted(left)} and {sorted(right)}")
    return {key: np.concatenate([left[key], right[key]]) for key in left}


def canonical_rows(rows: np.ndarray, metric: str) -> np.ndarray:
    """Sorts rows [n, k] into an order set by their values alone; ValueError for no rows."""
    if len(rows) == 0:
        raise ValueError(f"metric {metric!r} has seen no clip: call update before compute")
    return rows[np.lexsort(rows.T[::-1])]


def clips_of(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Checks a raw batch against the form above, and returns its video and audio."""
    missing = {"video", "audio"} - set(batch)
    if missing:
        raise ValueError(f"a batch needs 'video' and 'audio'; missing {sorted(missing)}")
    video, audio = np.asarray(batch["video"]), np.asarray(batch["audio"])
    if video.dtype != np.uint8 or video.ndim != 5 or video.shape[-1] != 3:
        raise ValueError(
            f"video is {video.dtype} {video.shape}; metrics take uint8 [b, f, h, w, 3]: "
            "export it first"
        )
    if audio.dtype != np.int16 or audio.ndim != 2:
        raise ValueError(
            f"audio is {audio.dtype} {audio.shape}; metrics take int16 [b, samples]: "
            "export it first"
        )
    if len(video) != len(audio):
        raise ValueError(f"{len(video)} videos and {len(audio)} sounds; a batch holds pairs")
    return video, audio


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
