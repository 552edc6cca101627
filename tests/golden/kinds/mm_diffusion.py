# SPDX-License-Identifier: Apache-2.0
"""Layouts and analytic model that the three MM-Diffusion kinds share."""

import re

import jax.numpy as jnp
import numpy as np

from mmdisco_jax.process.predictions import per_sample
from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.types import AV, Array, Cond, DenoiseFn
from tests.golden.checker import Golden

# Official layouts [b c l] and [b f c h w] to ours.
TO_OURS = {"audio": (0, 2, 1), "video": (0, 1, 3, 4, 2)}


def ours(x: np.ndarray, modality: str) -> Array:
    return jnp.asarray(np.transpose(x, TO_OURS[modality]))


def official(x: Array, modality: str) -> np.ndarray:
    return np.transpose(np.asarray(x), np.argsort(TO_OURS[modality]))


def start(golden: Golden) -> AV:
    return {m: ours(golden[f"x_{m}"], m) for m in TO_OURS}


def model(golden: Golden, schedule: Schedule) -> DenoiseFn:
    """Exact predictors of Gaussians of std 0.5 (video) and 0.4, each with a mean by the other.

    The means are 0.3 + (first number) mean(audio) and -0.2 + (second) mean(video) in the formula.
    """
    to_video, to_audio = map(
        float, re.findall(r"([0-9.]+) mean\(", golden.require("model_formula"))
    )
    abar = np.asarray(schedule.abar, np.float32)

    def denoise(x: AV, t: Array, cond: Cond = None) -> AV:
        del cond
        a = jnp.asarray(abar)[t]
        mean = {m: v.reshape(len(t), -1).mean(1) for m, v in x.items()}
        means = {"video": 0.3 + to_video * mean["audio"], "audio": -0.2 + to_audio * mean["video"]}
        out = {}
        for m, variance in (("video", 0.25), ("audio", 0.16)):
            level, centre = per_sample(a, x[m]), per_sample(means[m], x[m])
            offset = x[m] - jnp.sqrt(level) * centre
            out[m] = jnp.sqrt(1 - level) * offset / (variance * level + 1 - level)
        return out

    return denoise
