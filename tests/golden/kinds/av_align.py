# SPDX-License-Identifier: Apache-2.0
"""Golden kind "av_align": flow trajectory, peaks of sound and motion, and scores of the 2025-02
version.
"""

import numpy as np

from mmdisco_jax.metrics import av_align
from tests.golden.checker import Golden, Pair

FLOW = 1e-3  # OpenCV's Farneback differs in rounding between builds


def check(golden: Golden) -> dict[str, Pair]:
    """Flow within `FLOW`; peak times and scores exactly."""
    fps, rate = golden.require("fps"), golden.require("sample_rate")
    rules = av_align.PROTOCOLS["av_align_v2"]
    flow = np.stack([av_align.flow_trajectory(frames) for frames in golden["frames"]])
    sounds = [av_align.audio_peaks(wave, rate) for wave in golden["waves"]]
    motions = [av_align.video_peaks(one, fps) for one in flow]
    scores = [av_align.score(a, v, fps, rules) for a, v in zip(sounds, motions, strict=True)]
    pairs = {
        "flow": Pair(flow, golden["flow"], FLOW),
        "scores": Pair(np.array(scores), np.array(golden.require("scores")), 0.0),
    }
    for name, got in (("audio_peaks", sounds), ("video_peaks", motions)):
        for clip, (mine, theirs) in enumerate(zip(got, golden.require(name), strict=True)):
            pairs[f"{name}[{clip}]"] = Pair(mine, np.array(theirs), 0.0)
    return pairs
