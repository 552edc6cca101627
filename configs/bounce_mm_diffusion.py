# SPDX-License-Identifier: Apache-2.0
r"""A small MM-Diffusion on the bouncing ball, on pixels and waveform, for two CPU cores.

    python launch.py prepare  --config=configs/bounce_mm_diffusion.py --workdir=runs/bounce_mm
    python launch.py train    --config=configs/bounce_mm_diffusion.py --workdir=runs/bounce_mm/joint
    python launch.py prepare  --config=configs/bounce_mm_diffusion.py --workdir=runs/bounce_mm \
        --config.fakes.num_samples=512
    python launch.py train    --config=configs/bounce_mm_diffusion.py:discriminator \
        --workdir=runs/bounce_mm/discriminator --config.weights.fakes=runs/bounce_mm/fakes
    python launch.py sample   --config=configs/bounce_mm_diffusion.py \
        --workdir=runs/bounce_mm/samples
    python launch.py evaluate --config=configs/bounce_mm_diffusion.py \
        --workdir=runs/bounce_mm/samples

The argument is what `train` trains: joint (the base model) or discriminator.

Hardware and time: two CPU cores, 2,800 steps of .8 to .9 s for the joint model.

Measured, n = 256: timing F1 within half a frame .764 [.733, .793], colour .602 [.535, .660];
guided at scale 1 .755 and .621: guidance does not help this base. configs/README.md says why.
"""

import ml_collections

from mmdisco_jax import recipes

TARGETS = ("joint", "discriminator")


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    train = recipes.arguments(argument, "train", train="joint")["train"]
    recipes.choice("target", train, TARGETS)
    training = {
        "joint": recipes.small_mm_training(),
        "discriminator": recipes.small_mm_discriminator_training(),
    }
    return ml_collections.ConfigDict(
        {
            "data": {
                "name": "bounce",
                "options": {"num_train": 16_000, "num_test": 1024, "seed": 0},
            },
            "clip": recipes.clip_format(seconds=2.0, fps=8, size=32, rate=16_000),
            # The sound is loudest at .6 of full scale and mostly silent: at a scale of .1 it has
            # about unit variance.
            "bases": {"joint": recipes.small_mm_diffusion(patch=4, fold=40, audio_scale=0.1)},
            "discriminator": recipes.small_mm_discriminator(),
            "weights": {
                "joint": "runs/bounce_mm/joint/weights.safetensors",
                "discriminator": "runs/bounce_mm/discriminator/weights.safetensors",
            },
            "fakes": {"batch_size": 64, "variant": "joint"},
            "train": training[train],
            "sample": recipes.small_mm_sampling()
            | {"variants": {"joint": {}, "guided": recipes.guided(1.0)}},
            "evaluate": {
                "metrics": ("bounce", "proxy_frechet_video", "proxy_frechet_audio", "av_align"),
                "levels": (50, 150, 250, 350, 450, 550, 650, 750),
            },
            "bench": {"batch_size": 16, "parts": ("training", "sampling", "estimate")},
        }
    )
