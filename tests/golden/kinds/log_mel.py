# SPDX-License-Identifier: Apache-2.0
"""Golden kind "log_mel": the front ends of AudioLDM and Auffusion."""

import jax
import numpy as np

from mmdisco_jax.codecs.audioldm_mel import (
    AUDIOLDM,
    AUFFUSION,
    LogMelSpec,
    auffusion_level,
    auffusion_mel,
    auffusion_picture,
    log_mel,
)
from tests.golden.checker import FORWARD, Golden, GoldenError, Pair


def check(golden: Golden) -> dict[str, Pair]:
    config = golden.require("audioldm")
    spec = LogMelSpec(
        sample_rate_hz=config["sampling_rate"],
        n_fft=config["filter_length"],
        win_length=config["win_length"],
        hop_length=config["hop_length"],
        num_mels=config["n_mel"],
        fmin_hz=config["mel_fmin"],
        fmax_hz=config["mel_fmax"],
    )
    if spec != AUDIOLDM:
        raise GoldenError(f"the file is of {spec}, not of the preset {AUDIOLDM}")
    wave = golden["wave"]
    audioldm = jax.jit(lambda wave: log_mel(AUDIOLDM, wave))(wave)
    # The official code reads int16 sound, cut towards zero.
    read = (wave * 32768).astype(np.int16) / np.float32(32768)
    auffusion = jax.jit(lambda wave: log_mel(AUFFUSION, auffusion_level(wave)))(read)
    picture = auffusion_picture(auffusion)
    return {
        "audioldm_logmel": Pair(np.asarray(audioldm), golden["audioldm_logmel"], FORWARD),
        "auffusion_mel": Pair(
            np.asarray(auffusion.swapaxes(1, 2)), golden["auffusion_mel"], FORWARD
        ),
        "auffusion_normalized": Pair(
            np.asarray(picture[0].transpose(2, 0, 1)), golden["auffusion_normalized"], FORWARD
        ),
        "auffusion_denormalized": Pair(
            np.asarray(auffusion_mel(picture)[0].T), golden["auffusion_denormalized"], FORWARD
        ),
    }
