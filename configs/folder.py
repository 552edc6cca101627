# SPDX-License-Identifier: Apache-2.0
r"""Your own videos: two small base models and a discriminator on any folder of media with sound.

    python launch.py prepare --config=configs/folder.py:/path/to/videos --workdir=runs/mine
    python launch.py train   --config=configs/folder.py:path=/path/to/videos,train=video \
        --workdir=runs/mine/video
    python launch.py train   --config=configs/folder.py:path=/path/to/videos,train=audio \
        --workdir=runs/mine/audio
    python launch.py train   --config=configs/folder.py:path=/path/to/videos \
        --workdir=runs/mine/discriminator
    python launch.py sample  --config=configs/folder.py:/path/to/videos --workdir=runs/mine/samples

Arguments, by name: path (a first argument without a name is the path), train (video, audio or
discriminator), seconds, size (pixels of a square frame), fps, rate (samples a second), dataset
(folder, landscape, aist_plus_plus, long_videos or vggsound; data/DATASET/README.md). The shapes of
the models follow from them. By default clips of 1.6 s: 16 frames of 64 x 64 at 10 fps and 16 kHz,
as MM-Diffusion's; training draws them from the longer records that most datasets have.

Hardware and time: two CPU cores for the default size, hours; a GPU for more. A start to grow from:
no result is measured.
"""

import ml_collections

from mmdisco_jax import recipes

TARGETS = ("video", "audio", "discriminator")


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    given = recipes.arguments(
        argument,
        "path",
        path=".",
        train="discriminator",
        seconds=1.6,
        size=64,
        fps=10,
        rate=16_000,
        dataset="folder",
    )
    recipes.choice("target", given["train"], TARGETS)
    size, clip = given["size"], {k: given[k] for k in ("seconds", "fps", "size", "rate")}
    return ml_collections.ConfigDict(
        {
            "data": recipes.media_data(
                given["dataset"], given["path"], spatial="centre_crop", **clip
            ),
            "clip": recipes.clip_format(**clip),
            "bases": recipes.patch_transformers(size=size, num_mels=64, mel_mean=-0.3),
            "discriminator": recipes.aligned_on_bases(),
            "weights": {m: f"runs/mine/{m}/weights.safetensors" for m in TARGETS},
            "train": recipes.patch_training(given["train"]),
            "sample": recipes.ddim_sampling(eta=1.0),
            "evaluate": {
                "metrics": ("av_align", "proxy_frechet_video", "proxy_frechet_audio"),
                "levels": (50, 150, 250, 350, 450, 550, 650, 750),
            },
        }
    )
