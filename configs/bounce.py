# SPDX-License-Identifier: Apache-2.0
r"""A ball that bounces and rings: from simulated data to guided samples on a laptop.

Two small base models, one of pixels and one of log-mel spectrograms, and a time-aligned
discriminator on their features. The argument is what `train` trains: video, audio or discriminator.

    python launch.py prepare  --config=configs/bounce.py --workdir=runs/bounce
    python launch.py train    --config=configs/bounce.py:video --workdir=runs/bounce/video
    python launch.py train    --config=configs/bounce.py:audio --workdir=runs/bounce/audio
    python launch.py train    --config=configs/bounce.py:discriminator \
        --workdir=runs/bounce/discriminator --config.seed=1
    python launch.py sample   --config=configs/bounce.py --workdir=runs/bounce/samples
    python launch.py evaluate --config=configs/bounce.py --workdir=runs/bounce/samples

Hardware and time: two CPU cores, about 80 minutes for the three trainings. The shipped weights come
from these commands.

Measured on 512 clips (configs/README.md has the table): timing F1 within half a frame .807 [.786,
.828] guided, .178 [.157, .200] independent, 1 real; colour heard as seen .969, .287 and 1.
"""

import ml_collections

from mmdisco_jax import recipes

TARGETS = ("video", "audio", "discriminator")


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    train = recipes.arguments(argument, "train", train="discriminator")["train"]
    recipes.choice("target", train, TARGETS)
    weights = {m: f"mmdisco_jax/weights/bounce_{m}.safetensors" for m in TARGETS}
    return ml_collections.ConfigDict(
        {
            "data": {
                "name": "bounce",
                "options": {"num_train": 16_000, "num_test": 1024, "seed": 0},
            },
            "clip": recipes.clip_format(seconds=2.0, fps=8, size=32, rate=16_000),
            "bases": recipes.patch_transformers(size=32, num_mels=32, mel_mean=-0.85),
            "discriminator": recipes.aligned_on_bases(),
            "weights": weights,
            "train": recipes.patch_training(train),
            "sample": recipes.ddim_sampling(eta=1.0),
            "evaluate": {
                "metrics": ("bounce", "proxy_frechet_video", "proxy_frechet_audio", "av_align"),
                "levels": (50, 150, 250, 350, 450, 550, 650, 750),
            },
        }
    )
