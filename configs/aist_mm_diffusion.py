# SPDX-License-Identifier: Apache-2.0
r"""MM-Diffusion at the paper's size on AIST++: dance and its music.

    python launch.py prepare --config=configs/aist_mm_diffusion.py:/path/to/aist --workdir=runs/aist
    python launch.py train   --config=configs/aist_mm_diffusion.py:/path/to/aist \
        --workdir=runs/aist/joint

Arguments, by name: path (a first argument without a name is the path) and train (joint or
discriminator). Size and recipe are those of the paper, as on Landscape; 133,675,524 parameters.

Hardware and time: the authors trained 100,000 steps of batch 128 on 32 V100. Never trained here.
"""

import ml_collections

from mmdisco_jax import recipes

TARGETS = ("joint", "discriminator")


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    given = recipes.arguments(argument, "path", path=".", train="joint")
    recipes.choice("target", given["train"], TARGETS)
    training = {
        "joint": recipes.mm_diffusion_training(),
        "discriminator": recipes.patch_training("discriminator")
        | {"objective": {"fakes": "generated_pairs"}},
    }
    clip = {"seconds": 1.6, "fps": 10, "size": 64, "rate": 16_000}
    return ml_collections.ConfigDict(
        {
            "data": recipes.media_data("aist_plus_plus", given["path"], spatial="pad", **clip),
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
