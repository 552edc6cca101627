# SPDX-License-Identifier: Apache-2.0
"""`make demo`: the shipped bounce weights, 32 seeds of independent and of guided clips.

    python launch.py sample   --config=configs/bounce_demo.py --workdir=runs/demo
    python launch.py evaluate --config=configs/bounce_demo.py --workdir=runs/demo

About two minutes on two CPU cores after installation. Then open runs/demo/index.html.

Measured, n = 32: timing F1 within half a frame .779 [.701, .859] guided, .125 independent; colour
heard as seen .969 and .250.
"""

import ml_collections

from mmdisco_jax import recipes


def get_config() -> ml_collections.ConfigDict:
    names = ("video", "audio", "discriminator")
    return ml_collections.ConfigDict(
        {
            "data": {"name": "bounce", "options": {"num_train": 1, "num_test": 256, "seed": 0}},
            "clip": recipes.clip_format(seconds=2.0, fps=8, size=32, rate=16_000),
            "bases": recipes.patch_transformers(size=32, num_mels=32, mel_mean=-0.85),
            "discriminator": recipes.aligned_on_bases(),
            "weights": {m: f"mmdisco_jax/weights/bounce_{m}.safetensors" for m in names},
            "sample": recipes.ddim_sampling(eta=1.0) | {"num_samples": 32, "batch_size": 16},
            "evaluate": {
                "metrics": ("bounce", "proxy_frechet_video", "proxy_frechet_audio", "av_align"),
            },
        }
    )
