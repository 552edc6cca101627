# SPDX-License-Identifier: Apache-2.0
r"""MM-Diffusion at the paper's size on Landscape (Ruan et al. 2023): both modalities in one model.

    python launch.py prepare --config=configs/landscape_mm_diffusion.py:/path/to/landscape \
        --workdir=runs/landscape
    python launch.py train   --config=configs/landscape_mm_diffusion.py:/path/to/landscape \
        --workdir=runs/landscape/joint

The argument is FOLDER[,TARGET[,DATASET]]: TARGET is joint (the base model) or discriminator,
DATASET one of configs/folder.py. 16 frames of 64 x 64 at 10 fps and 25,600 samples at 16 kHz; the
authors trained 100,000 steps of batch 128 on 32 V100; 133,675,524 parameters.
"""

from typing import Any

import ml_collections

from configs import folder

TARGETS = ("joint", "discriminator")


def get_config(argument: str = ".") -> ml_collections.ConfigDict:
    path, target, dataset = (*argument.split(","), "", "")[:3]
    target = target or "joint"
    if target not in TARGETS:
        raise ValueError(f"unknown target {target!r}: choose one of {', '.join(TARGETS)}.")
    part = "discriminator" if target == "discriminator" else "video"
    config: Any = folder.get_config(f"{path},{part},{dataset or 'landscape'}")
    with config.unlocked():
        config.data.options.spatial = "pad"
        config.codecs.audio = {"name": "waveform", "scale": 1.0}
        config.bases = {"joint": base()}
        config.weights = {"joint": "", "discriminator": "", "fakes": ""}
        config.discriminator = discriminator()
        set_sampling(config, sampling())
        config.sample.variants = {
            "joint": {},
            "guided": {"scales": {"audio": 1.0, "video": 1.0}},
        }
        config.fakes.variant = "joint"
        config.bench.update({"batch_size": 2, "parts": ("estimate",)})
        if target == "joint":
            config.train.update(joint_training())
        else:
            config.train.objective.fakes = "generated_pairs"
    return config


def base() -> dict[str, Any]:
    """The official network (`landscape_linear1000_16x64x64_shiftT_window148`)."""
    return {
        "name": "mm_diffusion",
        "sample_shapes": {"audio": (25_600, 1), "video": (16, 64, 64, 3)},
        "prediction": "eps",
        "model_channels": 128,
        "channel_mult": (1, 2, 3, 4),
        "num_res_blocks": 2,
        "num_groups": 32,
        "video_attention_resolutions": (2, 4, 8),
        "cross_attention_resolutions": (2, 4, 8),
        "cross_attention_windows": (1, 4, 8),
        "cross_attention_shift": True,
        "video_type": "2d+1d",
        "dropout": 0.1,
        "learn_sigma": False,
        "remat": "blocks",
        "compute_dtype": "bfloat16",
    }


def discriminator() -> dict[str, Any]:
    """MMDisCo's for MM-Diffusion: 12,682,241 parameters."""
    return {
        "name": "official",
        "video_channels": 3,
        "audio_channels": 1,
        "audio_conv": "1d",
        "num_res_blocks": 2,
        "dilation_period": 10,
        "fusion": {"kind": "aggregate_time_and_cat_ch"},
    }


def set_sampling(config: Any, settings: dict[str, Any]) -> None:
    """Settings of `config.sample`; its samplers anew, for each has settings of its own."""
    config.sample.update({k: v for k, v in settings.items() if k != "samplers"})
    config.sample.samplers = settings["samplers"]


def sampling() -> dict[str, Any]:
    """MMDisCo's: DPM-Solver++ of order 3, single-step, 20 calls, dynamic thresholding."""
    solver = {"name": "dpm_solver_pp", "order": 3, "clip": 1.0, "quantile": 0.995}
    return {
        "samplers": {"video": solver, "audio": solver},
        "num_steps": 20,
        "grid": "solver",
        "spacing": "logsnr",
        "to_clean": False,
        "model_time": "truncated",
    }


def joint_training() -> dict[str, Any]:
    """The authors' recipe, with a warm-up and clipping that theirs lacks."""
    return {
        "target": "joint",
        "batch_size": 128,
        "num_microbatches": 1,
        "num_steps": 100_000,
        "learning_rate": 1e-4,
        "warmup_steps": 1000,
        "final_fraction": 1.0,
        "b2": 0.999,
        "ema_decay": 0.9999,
        "max_weight": None,  # every level's error of eps counts alike
        "time_sampler": "uniform",
        "time": {"focus": 0.0, "low": 0, "high": 0},
    }
