# SPDX-License-Identifier: Apache-2.0
r"""MM-Diffusion at the paper's size on Landscape (Ruan et al. 2023): both modalities in one model.

    python launch.py prepare --config=configs/landscape_mm_diffusion.py:/path/to/landscape \
        --workdir=runs/landscape
    python launch.py train   --config=configs/landscape_mm_diffusion.py:/path/to/landscape \
        --workdir=runs/landscape/joint

Arguments, by name: path (a first argument without a name is the path), train (joint, the base
model, or discriminator), dataset (as in configs/folder.py). 16 frames of 64 x 64 at 10 fps and
25,600 samples at 16 kHz; 133,675,524 parameters.

Hardware and time: the authors trained 100,000 steps of batch 128 on 32 V100. Compiled for a CPU
here and never trained: 5,114 GFLOP a pair and step, 43 GB peak at batch 2 with remat "blocks".
"""

import ml_collections

from mmdisco_jax import recipes

TARGETS = ("joint", "discriminator")


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    given = recipes.arguments(argument, "path", path=".", train="joint", dataset="landscape")
    recipes.choice("target", given["train"], TARGETS)
    training = {
        "joint": recipes.mm_diffusion_training(),
        "discriminator": recipes.patch_training("discriminator")
        | {"objective": {"fakes": "generated_pairs"}},
    }
    clip = {"seconds": 1.6, "fps": 10, "size": 64, "rate": 16_000}
    return ml_collections.ConfigDict(
        {
            "data": recipes.media_data(given["dataset"], given["path"], spatial="pad", **clip),
            "clip": recipes.clip_format(**clip),
            "bases": {"joint": recipes.mm_diffusion()},
            "discriminator": recipes.official_mm_discriminator(),
            "weights": {"joint": "", "discriminator": ""},
            "fakes": {"variant": "joint"},
            "train": training[given["train"]],
            "sample": recipes.mm_diffusion_sampling(),
            "evaluate": {"metrics": ("av_align", "proxy_frechet_video", "proxy_frechet_audio")},
            "bench": {"batch_size": 2, "parts": ("estimate",)},
        }
    )
