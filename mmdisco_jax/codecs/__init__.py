# SPDX-License-Identifier: Apache-2.0
"""Signal <-> what the diffusion models see: frozen dataclasses with encode and decode.

The vae_ ones are networks: see codecs/weighted.py for how they get their weights.
"""

from mmdisco_jax.registry import Registry

CODECS = Registry(
    "codec",
    {
        "pixels": "mmdisco_jax.codecs.pixels:Pixels",
        "log_mel": "mmdisco_jax.codecs.log_mel:LogMel",
        "waveform": "mmdisco_jax.codecs.waveform:Waveform",
        "vae_frames": "mmdisco_jax.codecs.vae_frames:VaeFrames",
        "vae_mel": "mmdisco_jax.codecs.vae_mel:VaeMel",
    },
)
