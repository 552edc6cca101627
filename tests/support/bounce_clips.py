# SPDX-License-Identifier: Apache-2.0
"""Real bounce clips and what the detectors see in them, made once."""

import numpy as np
import pytest

from mmdisco_jax.worlds.bounce import measures as bounce
from mmdisco_jax.worlds.bounce import physics

CLIPS = 64


def batch_of(clips: list[physics.BounceClip]) -> dict[str, np.ndarray]:
    """A raw batch, as metrics take it."""
    return {
        "video": np.stack([clip.video for clip in clips]),
        "audio": np.stack([clip.audio for clip in clips]),
    }


@pytest.fixture(scope="session")
def clips() -> list[physics.BounceClip]:
    return [physics.simulate(5, index) for index in range(CLIPS)]


@pytest.fixture(scope="session")
def seen(clips) -> list[bounce.Seen]:
    return [bounce.detect(clip.video, clip.audio) for clip in clips]
