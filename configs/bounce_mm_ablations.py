# SPDX-License-Identifier: Apache-2.0
r"""What the small MM-Diffusion does: guidance, and one modality given. 256 clips each.

The argument chooses the question: guidance, video_to_audio or audio_to_video.

    python -m data.bounce.export_media runs/bounce_mm/media --num_clips=256 --split=test
    for f in guidance video_to_audio audio_to_video; do
      python launch.py sample   --config=configs/bounce_mm_ablations.py:$f \
          --workdir=runs/bounce_mm/$f
      python launch.py evaluate --config=configs/bounce_mm_ablations.py:$f \
          --workdir=runs/bounce_mm/$f
    done
"""

from typing import Any

import ml_collections

from configs import bounce_mm_diffusion

SCALES = (1.0, 3.0)
# Of the gradient of a mean over 49,152 or 32,000 numbers; the official scripts have 3 * 2**20 over
# their batch size.
WEIGHTS = (1e4, 1e5)
MEDIA = "runs/bounce_mm/media"


def _given(modality: str) -> dict[str, Any]:
    condition = {"given": modality, "media": MEDIA}
    gradients = {f"gradient_{w:.0e}": {"condition": condition | {"weight": w}} for w in WEIGHTS}
    return {"replacement": {"condition": condition}} | gradients


def get_config(factor: str = "guidance") -> ml_collections.ConfigDict:
    config: Any = bounce_mm_diffusion.get_config()
    scales = {f"scale_{s:.0f}": {"scales": {"audio": s, "video": s}} for s in SCALES}
    factors = {
        "guidance": {"joint": {}} | scales,
        "video_to_audio": _given("video"),
        "audio_to_video": _given("audio"),
    }
    if factor not in factors:
        raise ValueError(f"unknown factor {factor!r}: choose one of {', '.join(factors)}.")
    with config.unlocked():
        config.sample.variants = factors[factor]
    config.sample.num_samples, config.sample.batch_size = 256, 32
    config.evaluate.levels = ()
    return config
