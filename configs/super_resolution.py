# SPDX-License-Identifier: Apache-2.0
r"""MM-Diffusion's super-resolution, 64 to 256 pixels, frame by frame, on any prepared dataset.

    python launch.py prepare --config=configs/super_resolution.py:/path/to/landscape,landscape \
        --workdir=runs/super_resolution
    python launch.py train   --config=configs/super_resolution.py:/path/to/landscape,landscape \
        --workdir=runs/super_resolution
    python launch.py sample  --config=configs/super_resolution.py:/path/to/landscape,landscape \
        --workdir=runs/super_resolution/samples \
        --config.weights.joint=runs/landscape/joint/weights.safetensors

The argument is FOLDER[,DATASET] with DATASET one of configs/folder.py; clips are prepared at 256
pixels. `sample` draws clips of 64 pixels from the joint model of configs/landscape_mm_diffusion.py
and enlarges them; `evaluate` compares with real clips of 256. Released weights serve as well:
configs/convert.py, then --config.super_resolution.weights=FILE.

The authors trained on single frames, 6 on each of 8 V100, at 1e-4, from the ImageNet upsampler of
guided diffusion (--config.train.init_from=FILE); 311,027,910 parameters. Here the learned variance
is not trained: DDIM has no use for it. --config.train.num_microbatches=16 takes a sixteenth of the
memory.
"""

from typing import Any

import ml_collections

from configs import landscape_mm_diffusion

LOW, HIGH = 64, 256


def get_config(argument: str = ".") -> ml_collections.ConfigDict:
    path, dataset = (*argument.split(","), "")[:2]
    config: Any = landscape_mm_diffusion.get_config(f"{path},joint,{dataset or 'folder'}")
    with config.unlocked():
        config.data.options.update(height=HIGH, width=HIGH, clip_seconds=config.clip.seconds)
        config.data.flip = "off"
        config.codecs.video = {"name": "pixels", "shrink": HIGH // LOW}
        config.super_resolution = super_resolution() | {
            "weights": "runs/super_resolution/weights.safetensors"
        }
        config.train.update(training())
        config.sample.variants = {"joint": {}}
    return config


def super_resolution() -> dict[str, Any]:
    """The official network (AIST++_SR, Landscape_SR), its training pairs and its sampler."""
    return {
        "low_size": LOW,
        "high_size": HIGH,
        # Fields of ImageUNetSpec.
        "base": {
            "in_channels": 6,
            "out_channels": 6,
            "model_channels": 192,
            "channel_mult": (1, 1, 2, 2, 4, 4),
            "num_res_blocks": 2,
            "attention_factors": (8, 16, 32),
            "num_heads": 4,
            "scale_shift_norm": True,
            "resize_in_blocks": True,
            "dropout": 0.0,
            "num_groups": 32,
        },
        "prediction": "eps",
        "schedule": {
            "name": "linear",
            "num_timesteps": 1000,
            "beta_start": 1e-4,
            "beta_end": 0.02,
        },
        "sampler": {"name": "ddim", "eta": 0.0, "clip": 1.0},
        "respacing": "ddim25",  # 25 steps; samplers/respacing.py has the notation
        "frames_per_batch": 16,  # pictures on the device at a time
        # How training spoils the small pictures (inputs/degradations.py), of how many frames.
        "pairs": {
            "frames_per_clip": 1,
            "noise_probability": 0.5,
            "max_noise": 20.0,
            "jpeg_probability": 0.5,
            "jpeg_quality": (20, 80),
        },
    }


def training() -> dict[str, Any]:
    """The authors' recipe; but they use no warm-up, no clipping, and train the variance."""
    return {
        "target": "super_resolution",
        "batch_size": 48,
        "num_microbatches": 1,
        "num_steps": 100_000,  # theirs is not known
        "learning_rate": 1e-4,
        "warmup_steps": 1000,
        "final_fraction": 1.0,
        "b2": 0.999,
        "ema_decay": 0.9999,
        "max_weight": None,
        "time": {"focus": 0.0, "low": 0, "high": 0},
    }
