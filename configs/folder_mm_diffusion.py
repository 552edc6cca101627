# SPDX-License-Identifier: Apache-2.0
r"""A small MM-Diffusion on any folder of media with sound, on pixels and waveform.

    python launch.py prepare --config=configs/folder_mm_diffusion.py:/path/to/videos \
        --workdir=runs/mine
    python launch.py train   --config=configs/folder_mm_diffusion.py:/path/to/videos \
        --workdir=runs/mine/joint
    python launch.py sample  --config=configs/folder_mm_diffusion.py:/path/to/videos \
        --workdir=runs/mine/samples

Arguments, by name: path (a first argument without a name is the path), train (joint or
discriminator), seconds, size, fps, rate and dataset as in configs/folder.py. The network is that of
configs/bounce_mm_diffusion.py.

Hardware and time: two CPU cores, hours. A start to grow from: no result is measured.
"""

import ml_collections

from mmdisco_jax import recipes

TARGETS = ("joint", "discriminator")


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    given = recipes.arguments(
        argument,
        "path",
        path=".",
        train="joint",
        seconds=1.6,
        size=64,
        fps=10,
        rate=16_000,
        dataset="folder",
    )
    recipes.choice("target", given["train"], TARGETS)
    training = {
        "joint": recipes.small_mm_training(),
        "discriminator": recipes.small_mm_discriminator_training(),
    }
    clip = {k: given[k] for k in ("seconds", "fps", "size", "rate")}
    return ml_collections.ConfigDict(
        {
            "data": recipes.media_data(given["dataset"], given["path"], spatial="pad", **clip),
            "clip": recipes.clip_format(**clip),
            "bases": {"joint": recipes.small_mm_diffusion(patch=4, fold=40, audio_scale=0.2)},
            "discriminator": recipes.small_mm_discriminator(),
            "weights": {m: f"runs/mine/{m}/weights.safetensors" for m in TARGETS},
            "fakes": {"variant": "joint"},
            "train": training[given["train"]],
            "sample": recipes.small_mm_sampling() | {"variants": {"joint": {}}},
            "evaluate": {"metrics": ("av_align", "proxy_frechet_video", "proxy_frechet_audio")},
            "bench": {"batch_size": 8, "parts": ("training", "sampling", "estimate")},
        }
    )
