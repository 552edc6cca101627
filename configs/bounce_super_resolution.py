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
"""

from typing import Any

import ml_collections

from configs import bounce, super_resolution

TARGETS = ("super_resolution", "video")
LOW, HIGH = 16, 32


def get_config(target: str = "super_resolution") -> ml_collections.ConfigDict:
    if target not in TARGETS:
        raise ValueError(f"unknown target {target!r}: choose one of {', '.join(TARGETS)}.")
    config: Any = bounce.get_config("video")
    with config.unlocked():
        config.codecs.video = {"name": "pixels", "shrink": HIGH // LOW}
        config.bases.video.update(sample_shape=(16, LOW, LOW, 3), patch=(1, 4, 4))
        config.weights.video = "runs/bounce_sr/video/weights.safetensors"
        config.super_resolution = section()
        if target == "super_resolution":
            config.train.update(training())
        config.sample.variants = {"independent": {}}
    config.evaluate.levels = ()
    return config


def section() -> dict[str, Any]:
    """The official one, small: 8, 16 and 32 channels at 32, 16 and 8 pixels."""
    official = super_resolution.super_resolution()
    base = official["base"] | {
        "model_channels": 8,
        "channel_mult": (1, 2, 4),
        "num_res_blocks": 1,
        "attention_factors": (),
        "num_heads": 2,
        "num_groups": 4,
    }
    return official | {
        "low_size": LOW,
        "high_size": HIGH,
        "base": base,
        "prediction": "x0",  # 8 channels cannot carry the noise through, but the signal they can
        "weights": "runs/bounce_sr/super_resolution/weights.safetensors",
        "frames_per_batch": 64,
        "pairs": official["pairs"] | {"frames_per_clip": 2},
    }


def training() -> dict[str, Any]:
    return super_resolution.training() | {
        "batch_size": 8,
        "num_steps": 1000,
        "learning_rate": 2e-3,
        "warmup_steps": 50,
        "final_fraction": 0.02,
        "b2": 0.99,
        "ema_decay": 0.998,
        "max_weight": 10.0,
    }
