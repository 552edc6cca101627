# SPDX-License-Identifier: Apache-2.0
r"""A cascade in small: a bouncing ball of 16 pixels, enlarged to 32. For two CPU cores.

    python launch.py prepare  --config=configs/bounce_super_resolution.py --workdir=runs/bounce_sr
    python launch.py train    --config=configs/bounce_super_resolution.py \
        --workdir=runs/bounce_sr/super_resolution
    python launch.py train    --config=configs/bounce_super_resolution.py:video \
        --workdir=runs/bounce_sr/video
    python launch.py sample   --config=configs/bounce_super_resolution.py \
        --workdir=runs/bounce_sr/samples
    python launch.py evaluate --config=configs/bounce_super_resolution.py \
        --workdir=runs/bounce_sr/samples

The argument is what `train` trains: super_resolution, or video, the base model of small clips. The
sound is that of the shipped base model, without guidance.

Hardware and time: two CPU cores; about 20 minutes for super_resolution, 60 for video. The pictures
of a full training have not been scored.
"""

import ml_collections

from mmdisco_jax import recipes

TARGETS = ("super_resolution", "video")
LOW, HIGH = 16, 32


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    train = recipes.arguments(argument, "train", train="super_resolution")["train"]
    recipes.choice("target", train, TARGETS)
    bases = recipes.patch_transformers(size=HIGH, num_mels=32, mel_mean=-0.85)
    bases["video"] |= {"codec": {"name": "pixels", "shrink": HIGH // LOW}, "patch": (1, 4, 4)}
    training = {
        "video": recipes.patch_training("video"),
        "super_resolution": {
            "target": "super_resolution",
            "batch_size": 8,
            "num_steps": 1000,
            "learning_rate": 2e-3,
            "warmup_steps": 50,
        },
    }
    return ml_collections.ConfigDict(
        {
            "data": {
                "name": "bounce",
                "options": {"num_train": 16_000, "num_test": 1024, "seed": 0},
            },
            "clip": recipes.clip_format(seconds=2.0, fps=8, size=HIGH, rate=16_000),
            "bases": bases,
            "super_resolution": {
                "low_size": LOW,
                "high_size": HIGH,
                "base": recipes.super_resolution_network()
                | {
                    "model_channels": 8,
                    "channel_mult": (1, 2, 4),
                    "num_res_blocks": 1,
                    "attention_factors": (),
                    "num_heads": 2,
                    "num_groups": 4,
                },
                # 8 channels cannot carry the noise through, but the signal they can.
                "prediction": "x0",
                "schedule": recipes.linear_schedule(),
                "frames_per_batch": 64,
                "pairs": recipes.super_resolution_pairs() | {"frames_per_clip": 2},
                "weights": "runs/bounce_sr/super_resolution/weights.safetensors",
            },
            "weights": {
                "video": "runs/bounce_sr/video/weights.safetensors",
                "audio": "mmdisco_jax/weights/bounce_audio.safetensors",
            },
            "train": training[train],
            "sample": recipes.ddim_sampling(eta=1.0) | {"variants": {"independent": {}}},
            "evaluate": {
                "metrics": ("bounce", "proxy_frechet_video", "proxy_frechet_audio", "av_align"),
            },
        }
    )
