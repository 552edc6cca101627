# SPDX-License-Identifier: Apache-2.0
"""Agreement of picture and sound in bounce clips: timing, colour against pitch, ball presence.

Every score of the pair comes with its control on mismatched clips: the same clips, each with the
sound of another, which keeps the quality of either side and removes all agreement. Only the
difference between the two says something about the model. Detectors: `video`, `flight`, `audio`;
the tests measure how good they are on real clips.

Protocol `bounce_v2` names the control `_mismatched`; `bounce_v1` had another name for it and gives
the same numbers.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from mmdisco_jax.metrics import api, bootstrap, matching
from mmdisco_jax.worlds.bounce import physics
from mmdisco_jax.worlds.bounce.audio import audio_onsets, clip_pitch
from mmdisco_jax.worlds.bounce.flight import video_impacts
from mmdisco_jax.worlds.bounce.video import track_ball

MAX_EVENTS = 16  # more than the detectors can report in two seconds
TOLERANCES = {"half_frame": 0.5 / physics.FPS, "one_frame": 1.0 / physics.FPS}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen:
    """Report of the detectors on one clip: seconds, classes (or -1), frames with a ball."""

    impacts: np.ndarray
    onsets: np.ndarray
    colour: int
    pitch: int
    frames: int


def detect(video: np.ndarray, audio: np.ndarray) -> Seen:
    """Runs every detector on one clip: uint8 [16, 32, 32, 3], int16 or float [32000]."""
    track = track_ball(video)
    onsets, pitches = audio_onsets(audio)
    return Seen(
        impacts=video_impacts(track),
        onsets=onsets,
        colour=track.clip_colour(),
        pitch=clip_pitch(pitches),
        frames=int(track.present.sum()),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bounce:
    """Alignment of bounce clips.

    Results: `f1_half_frame` (the headline: impacts against onsets, matched one to one within 1/16
    s), `f1_one_frame` (1/8 s), `colour_pitch` (share of clips whose colour and pitch are of the
    same class; undetectable on either side is wrong), each with its `_mismatched` control when
    there are two clips, and `ball_presence` (share of frames with a plausible ball).
    """

    protocol: ClassVar[str] = "bounce_v2"
    context: api.Context

    def __post_init__(self):
        want = (physics.FPS, physics.SAMPLE_RATE_HZ)
        if (self.context.fps, self.context.sample_rate_hz) != want:
            raise ValueError(
                f"bounce clips have {want[0]} fps and {want[1]} Hz, not {self.context.fps} and "
                f"{self.context.sample_rate_hz}: these detectors know that one world only"
            )

    def init(self) -> api.State:
        return rows([])

    def update(self, state: api.State, batch: api.Batch) -> api.State:
        seen = [detect(video, audio) for video, audio in zip(*api.clips_of(batch), strict=True)]
        return self.merge(state, rows(seen))

    def merge(self, left: api.State, right: api.State) -> api.State:
        return api.merge_rows(left, right)

    def compute(self, state: api.State) -> tuple[api.Result, ...]:
        table = api.canonical_rows(state["rows"], self.protocol)
        impacts = [row[~np.isnan(row)] for row in table[:, :MAX_EVENTS]]
        onsets = [row[~np.isnan(row)] for row in table[:, MAX_EVENTS : 2 * MAX_EVENTS]]
        colour, pitch, frames = table[:, -3:].T
        results = self._agreement(impacts, onsets, colour, pitch, "")
        if len(table) > 1:
            order = matching.derangement(len(table), self.context.seed)
            moved = [onsets[k] for k in order]
            results += self._agreement(impacts, moved, colour, pitch[order], "_mismatched")
        return *results, self._mean("ball_presence", frames / physics.NUM_FRAMES)

    def _agreement(self, impacts, onsets, colour, pitch, suffix: str) -> list[api.Result]:
        """The three scores of one pairing of pictures and sounds."""
        better = "neither" if suffix else "higher"
        counts = {
            "impacts_per_clip": sum(map(len, impacts)) / len(impacts),
            "onsets_per_clip": sum(map(len, onsets)) / len(onsets),
        }
        results = []
        for name, tolerance in TOLERANCES.items():
            value, low, high = matching.temporal_f1(
                impacts,
                onsets,
                tolerance,
                replicates=self.context.replicates,
                seed=self.context.seed,
            )
            results.append(
                api.Result(
                    name=f"f1_{name}{suffix}",
                    protocol=self.protocol,
                    value=value,
                    low=low,
                    high=high,
                    n=len(impacts),
                    better=better,
                    detail=counts,
                )
            )
        right = (colour == pitch) & (colour >= 0)
        return [*results, self._mean(f"colour_pitch{suffix}", right, better)]

    def _mean(self, name: str, per_clip: np.ndarray, better: str = "higher") -> api.Result:
        value, low, high = bootstrap.ratio(
            per_clip, replicates=self.context.replicates, seed=self.context.seed
        )
        return api.Result(
            name=name,
            protocol=self.protocol,
            value=value,
            low=low,
            high=high,
            n=len(per_clip),
            better=better,
        )


def make(context: api.Context) -> Bounce:
    """Makes the bounce metric; `context` must be of the bounce world (8 fps, 16 kHz)."""
    return Bounce(context=context)


def rows(seen: Sequence[Seen]) -> api.State:
    """Makes the state that holds these reports."""
    table = np.full((len(seen), 2 * MAX_EVENTS + 3), np.nan)
    for row, one in zip(table, seen, strict=True):
        row[: len(one.impacts)] = one.impacts
        row[MAX_EVENTS : MAX_EVENTS + len(one.onsets)] = one.onsets
        row[-3:] = one.colour, one.pitch, one.frames
    return {"rows": table}
