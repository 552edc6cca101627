# SPDX-License-Identifier: Apache-2.0
r"""MM-Diffusion's super-resolution, 64 to 256 pixels, frame by frame, on any prepared dataset.

    python launch.py prepare --config=configs/super_resolution.py:/path/to/landscape \
        --workdir=runs/super_resolution
    python launch.py train   --config=configs/super_resolution.py:/path/to/landscape \
        --workdir=runs/super_resolution
    python launch.py sample  --config=configs/super_resolution.py:/path/to/landscape \
        --workdir=runs/super_resolution/samples \
        --config.weights.joint=runs/landscape/joint/weights.safetensors

Arguments, by name: path (a first argument without a name is the path) and dataset (as in
configs/folder.py); clips are prepared at 256 pixels. `sample` draws clips of 64 pixels from the
joint model of configs/landscape_mm_diffusion.py and enlarges them; `evaluate` compares with real
clips of 256. Released weights serve as well: configs/convert.py, then
--config.super_resolution.weights=FILE.

The authors trained on single frames, 6 on each of 8 V100, at 1e-4, from the ImageNet upsampler of
guided diffusion (--config.train.init_from=FILE), without warm-up or clipping, for a number of steps
that is not known; 311,027,910 parameters. Here the learned variance is not trained: DDIM has no use
for it.

Hardware: --config.train.num_microbatches=16 takes a sixteenth of the memory. Never trained here.
"""

import ml_collections

from mmdisco_jax import recipes

LOW, HIGH = 64, 256


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    given = recipes.arguments(argument, "path", path=".", dataset="folder")
    clip = {"seconds": 1.6, "fps": 10, "size": HIGH, "rate": 16_000}
    data = recipes.media_data(given["dataset"], given["path"], spatial="pad", **clip)
    data["options"]["clip_seconds"] = clip["seconds"]
    base = recipes.mm_diffusion()
    base["codec"]["video"] = {"name": "pixels", "shrink": HIGH // LOW}
    return ml_collections.ConfigDict(
        {
            "data": data | {"flip": "off"},
            "clip": recipes.clip_format(**clip),
            "bases": {"joint": base},
            "super_resolution": {
                "low_size": LOW,
                "high_size": HIGH,
                "base": recipes.super_resolution_network(),
                "schedule": recipes.linear_schedule(),
                "pairs": recipes.super_resolution_pairs(),
                "weights": "runs/super_resolution/weights.safetensors",
            },
            "weights": {"joint": ""},
            "train": recipes.mm_diffusion_training()
            | {"target": "super_resolution", "batch_size": 48},
            "sample": recipes.mm_diffusion_sampling() | {"variants": {"joint": {}}},
            "evaluate": {"metrics": ("av_align", "proxy_frechet_video", "proxy_frechet_audio")},
        }
    )
