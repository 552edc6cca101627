# SPDX-License-Identifier: Apache-2.0
"""AV-Align: intersection over union of peaks of sound and peaks of motion.

Yariv et al., 2024, "Diverse and Aligned Audio-to-Video Generation".

Four incompatible computations are published under this one name; each is a protocol here.

| protocol    | where                          | matching    | weak motion  | audio    | no peak   |
| ----------- | ------------------------------ | ----------- | ------------ | -------- | --------- |
| av_align_v1 | TempoTokens, 2023              | many to one | kept         | 22050 Hz | (1 / 0)   |
| av_align_v2 | TempoTokens, 2025-02 (default) | one to one  | below .1 out | 22050 Hz | (1 / 0)   |
| av_align_v3 | JavisBench, Seeing-and-Hearing | many to one | kept         | 22050 Hz | 0 by 1e-6 |
| av_align_v4 | MOVA                           | one to one  | below .1 out | 44100 Hz | 0         |

Deviations from what is published, each where it cannot run: v1 stops at an undefined name (the
length of the flow trajectory is meant), and v1 and v2 divide by zero when there is no peak (0 here,
as in v3 and v4). Many-to-one matching can score **above 1**: three sounds near one motion peak give
3 / (3 + 1 - 3). The .1 threshold is in pixels a frame, so scores depend on the frame size too.
"""

import dataclasses
import itertools
from collections.abc import Callable

import cv2
import librosa
import numpy as np

from mmdisco_jax.io import from_int16
from mmdisco_jax.metrics import api, bootstrap


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """Rules that differ by version. flow_threshold in pixels a frame; 0 keeps every peak."""

    name: str
    one_to_one: bool
    flow_threshold: float
    rate_hz: int = 22_050
    union_offset: float = 0.0


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(name="av_align_v1", one_to_one=False, flow_threshold=0.0),
        Protocol(name="av_align_v2", one_to_one=True, flow_threshold=0.1),
        Protocol(name="av_align_v3", one_to_one=False, flow_threshold=0.0, union_offset=1e-6),
        Protocol(name="av_align_v4", one_to_one=True, flow_threshold=0.1, rate_hz=44_100),
    )
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AVAlign:
    """Mean AV-Align of the clips under one protocol."""

    context: api.Context
    rules: Protocol

    @property
    def protocol(self) -> str:
        return self.rules.name

    def init(self) -> api.State:
        return {"rows": np.zeros((0, 3))}  # score, sound peaks, motion peaks

    def update(self, state: api.State, batch: api.Batch) -> api.State:
        new = [self._row(video, audio) for video, audio in zip(*api.clips_of(batch), strict=True)]
        return self.merge(state, {"rows": np.array(new, np.float64).reshape(-1, 3)})

    def merge(self, left: api.State, right: api.State) -> api.State:
        return api.merge_rows(left, right)

    def compute(self, state: api.State) -> tuple[api.Result, ...]:
        rows = api.canonical_rows(state["rows"], self.protocol)
        value, low, high = bootstrap.ratio(
            rows[:, 0], replicates=self.context.replicates, seed=self.context.seed
        )
        peaks = {"audio_peaks": float(rows[:, 1].sum()), "video_peaks": float(rows[:, 2].sum())}
        return (
            api.Result(
                name="av_align",
                protocol=self.protocol,
                value=value,
                low=low,
                high=high,
                n=len(rows),
                detail=peaks,
            ),
        )

    def _row(self, video: np.ndarray, audio: np.ndarray) -> tuple[float, int, int]:
        sounds = audio_peaks(audio, self.context.sample_rate_hz, rate_hz=self.rules.rate_hz)
        flow = flow_trajectory(video)
        motions = video_peaks(flow, self.context.fps, threshold=self.rules.flow_threshold)
        return score(sounds, motions, self.context.fps, self.rules), len(sounds), len(motions)


def audio_peaks(audio: np.ndarray, sample_rate_hz: int, *, rate_hz: int = 22_050) -> np.ndarray:
    """Onset times in seconds of a sound (int16 or float in [-1, 1], [samples]).

    The sound is resampled to `rate_hz`, then librosa's onset detector runs with its defaults
    (hop 512 samples, so 23 ms at 22050 Hz).
    """
    if audio.ndim != 1:
        raise ValueError(f"audio has shape {audio.shape}; one mono sound [samples] is expected")
    wave = from_int16(audio)
    wave = librosa.resample(wave, orig_sr=sample_rate_hz, target_sr=rate_hz)
    strength = librosa.onset.onset_strength(y=wave, sr=rate_hz)
    frames = librosa.onset.onset_detect(onset_envelope=strength, sr=rate_hz)
    return librosa.frames_to_time(frames, sr=rate_hz)


def flow_trajectory(video: np.ndarray) -> np.ndarray:
    """Mean Farneback flow, pixels a frame, float64 [f] of RGB frames uint8 [f, h, w, 3].

    Entry i is the motion from frame i-1 to i; entry 0 repeats entry 1, as published. Rounded to a
    millionth of a pixel: OpenCV's last bits depend on where its buffers lie, and versions without
    a threshold would count them as peaks where a picture stands still.
    """
    if len(video) < 2:
        raise ValueError(f"{len(video)} frame(s): optical flow needs at least 2")
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in video]
    motion = [_mean_flow(before, after) for before, after in itertools.pairwise(grey)]
    return np.round([motion[0], *motion], 6)


def _mean_flow(before: np.ndarray, after: np.ndarray) -> float:
    start = np.zeros((*before.shape, 2), np.float32)
    flow = cv2.calcOpticalFlowFarneback(before, after, start, 0.5, 3, 15, 3, 5, 1.2, 0)
    return cv2.mean(cv2.magnitude(flow[..., 0], flow[..., 1]))[0]


def video_peaks(flow: np.ndarray, fps: float, *, threshold: float = 0.1) -> np.ndarray:
    """Seconds (index / fps) of the strict local maxima of `flow` [f] that reach `threshold`."""
    middle = flow[1:-1]
    peak = (middle > flow[:-2]) & (middle > flow[2:]) & (middle >= threshold)
    return (np.flatnonzero(peak) + 1) / fps


def score(sounds: np.ndarray, motions: np.ndarray, fps: float, rules: Protocol) -> float:
    """Intersection over union of two lists of seconds; a match is nearer than one frame.

    Each sound, in order, takes the first motion peak near it; one to one means that a taken peak is
    gone. Without any peak the score is 0.
    """
    free = np.ones(len(motions), bool)
    hits = 0
    for sound in sounds:
        # The published comparison, kept in its form so that rounding at the border agrees too.
        near = np.flatnonzero((motions - 1 / fps < sound) & (sound < motions + 1 / fps) & free)
        if near.size:
            hits += 1
            free[near[0]] = not rules.one_to_one
    union = len(sounds) + len(motions) - hits + rules.union_offset
    return hits / union if union else 0.0


def peak_marks(
    fps: float, sample_rate_hz: int
) -> Callable[[np.ndarray, np.ndarray], dict[str, tuple[float, ...]]]:
    """Gallery marks of any clip: peaks of motion and onsets of sound, as AV-Align v2 takes them.

    Returns:
      A function (video uint8 [f h w 3], audio int16 or float [samples]) -> {"impact_seconds": ...,
      "onset_seconds": ...}, fields of `export.gallery_page.GalleryClip`.
    """

    def marks(video: np.ndarray, audio: np.ndarray) -> dict[str, tuple[float, ...]]:
        end = len(video) / fps
        motions = video_peaks(flow_trajectory(video), fps)
        sounds = audio_peaks(audio, sample_rate_hz)
        return {
            "impact_seconds": tuple(float(min(s, end)) for s in motions),
            "onset_seconds": tuple(float(min(s, end)) for s in sounds),
        }

    return marks


def make_v1(context: api.Context) -> AVAlign:
    """TempoTokens as first published (its evident intent): can exceed 1."""
    return AVAlign(context=context, rules=PROTOCOLS["av_align_v1"])


def make_v2(context: api.Context) -> AVAlign:
    """TempoTokens since 2025-02: the default."""
    return AVAlign(context=context, rules=PROTOCOLS["av_align_v2"])


def make_v3(context: api.Context) -> AVAlign:
    """JavisBench and Seeing-and-Hearing; crop or resize the clips beforehand if wanted."""
    return AVAlign(context=context, rules=PROTOCOLS["av_align_v3"])


def make_v4(context: api.Context) -> AVAlign:
    """MOVA: like v2 at 44.1 kHz, hence onsets on an 11.6 ms grid."""
    return AVAlign(context=context, rules=PROTOCOLS["av_align_v4"])
