# SPDX-License-Identifier: Apache-2.0
r"""The small MM-Diffusion of configs/bounce_mm_diffusion.py: guidance, and one modality given.

The argument chooses the question: guidance, video_to_audio or audio_to_video. 256 clips each.

    python -m data.bounce.export_media runs/bounce_mm/media --num_clips=256 --split=test
    for f in guidance video_to_audio audio_to_video; do
      python launch.py sample   --config=configs/bounce_mm_ablations.py:$f \
          --workdir=runs/bounce_mm/$f
      python launch.py evaluate --config=configs/bounce_mm_ablations.py:$f \
          --workdir=runs/bounce_mm/$f
    done

Hardware: two CPU cores, .6 s a clip of 20 calls.

Measured, timing F1 (mismatched controls): video to sound, n = 128: replacement .297 [.244, .355]
(.145), gradient 1e4 .303 (.137), 1e5 .327 [.270, .384] (.158); sound to video, n = 64: replacement
.908 [.864, .951] (.176).
"""

from typing import Any

import ml_collections

from mmdisco_jax import recipes

SCALES = (1.0, 3.0)
# Of the gradient of a mean over 49,152 or 32,000 numbers; the official scripts have 3 * 2**20 over
# their batch size.
WEIGHTS = (1e4, 1e5)
MEDIA = "runs/bounce_mm/media"


def _given(modality: str) -> dict[str, Any]:
    condition = {"given": modality, "media": MEDIA}
    gradients = {f"gradient_{w:.0e}": {"condition": condition | {"weight": w}} for w in WEIGHTS}
    return {"replacement": {"condition": condition}} | gradients


FACTORS: dict[str, dict[str, Any]] = {
    "guidance": {"joint": {}} | {f"scale_{s:.0f}": recipes.guided(s) for s in SCALES},
    "video_to_audio": _given("video"),
    "audio_to_video": _given("audio"),
}


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    factor = recipes.arguments(argument, "factor", factor="guidance")["factor"]
    recipes.choice("factor", factor, tuple(FACTORS))
    sampling = {"num_samples": 256, "batch_size": 32, "variants": FACTORS[factor]}
    return ml_collections.ConfigDict(
        {
            "data": {
                "name": "bounce",
                "options": {"num_train": 16_000, "num_test": 1024, "seed": 0},
            },
            "clip": recipes.clip_format(seconds=2.0, fps=8, size=32, rate=16_000),
            "bases": {"joint": recipes.small_mm_diffusion(patch=4, fold=40, audio_scale=0.1)},
            "discriminator": recipes.small_mm_discriminator(),
            "weights": {
                "joint": "runs/bounce_mm/joint/weights.safetensors",
                "discriminator": "runs/bounce_mm/discriminator/weights.safetensors",
            },
            "sample": recipes.small_mm_sampling() | sampling,
            "evaluate": {
                "metrics": ("bounce", "proxy_frechet_video", "proxy_frechet_audio", "av_align"),
            },
        }
    )
