# SPDX-License-Identifier: Apache-2.0
r"""A small MM-Diffusion on the bouncing ball, on pixels and waveform, for two CPU cores.

    python launch.py prepare  --config=configs/bounce_mm_diffusion.py --workdir=runs/bounce_mm
    python launch.py train    --config=configs/bounce_mm_diffusion.py --workdir=runs/bounce_mm/joint
    python launch.py sample   --config=configs/bounce_mm_diffusion.py \
        --workdir=runs/bounce_mm/samples
    python launch.py evaluate --config=configs/bounce_mm_diffusion.py \
        --workdir=runs/bounce_mm/samples

The argument is what `train` trains: joint (the base model) or discriminator.
"""

from typing import Any

import ml_collections

from configs import bounce, landscape_mm_diffusion

# Pixels and samples that share a position. One position for each, as at the paper's size, takes .63
# s of a sample's training step on two CPU cores even with 16 channels; so it takes .09.
PATCH = 4
FOLD = 40


def get_config(target: str = "joint") -> ml_collections.ConfigDict:
    if target not in landscape_mm_diffusion.TARGETS:
        known = ", ".join(landscape_mm_diffusion.TARGETS)
        raise ValueError(f"unknown target {target!r}: choose one of {known}.")
    config: Any = bounce.get_config("discriminator" if target == "discriminator" else "video")
    with config.unlocked():
        config.codecs = {
            "video": {"name": "pixels", "patch": PATCH},
            # Loudest at .6 of full scale, and mostly silent: about unit variance.
            "audio": {"name": "waveform", "scale": 0.1, "fold": FOLD},
        }
        config.bases = {"joint": base()}
        config.weights = {
            "joint": "runs/bounce_mm/joint/weights.safetensors",
            "discriminator": "runs/bounce_mm/discriminator/weights.safetensors",
            "fakes": "",
        }
        if target == "joint":
            config.train.update(joint_training())
        else:
            config.train.update(discriminator_training())
        config.discriminator = discriminator()
        config.fakes.update({"batch_size": 64, "variant": "joint"})
        landscape_mm_diffusion.set_sampling(config, sampling())
        config.bench.update({"batch_size": 16, "parts": ("training", "sampling", "estimate")})
        config.sample.variants = {
            "joint": {},
            "guided": {"scales": {"audio": 1.0, "video": 1.0}},
        }
    return config


def base() -> dict[str, Any]:
    """The official network, narrow: one block a level, three levels."""
    return landscape_mm_diffusion.base() | {
        "sample_shapes": {
            "audio": (32_000 // FOLD, FOLD),
            "video": (16, 32 // PATCH, 32 // PATCH, 3 * PATCH**2),
        },
        # 32 channels cannot carry the noise of 48 or 40 through, but the signal they can.
        "prediction": "x0",
        "audio_channels": FOLD,
        "video_channels": 3 * PATCH**2,
        "model_channels": 32,
        "channel_mult": (1, 2, 3),
        "num_res_blocks": 1,
        "num_groups": 8,
        "video_attention_resolutions": (2, 4),
        "cross_attention_resolutions": (2, 4),
        "cross_attention_windows": (1, 4),
        # A window that moves at random says what sounds, and not when (measured: a tone of the
        # ball's colour in .83 of the clips, and impacts met no oftener than by chance).
        "cross_attention_shift": False,
        "num_head_channels": 32,
        "dropout": 0.0,
        "remat": "none",
        "compute_dtype": "float32",
    }


def joint_training() -> dict[str, Any]:
    return landscape_mm_diffusion.joint_training() | {
        "batch_size": 8,
        "num_steps": 2800,
        "learning_rate": 1.5e-3,
        "warmup_steps": 50,
        "final_fraction": 0.02,
        "b2": 0.99,
        "ema_decay": 0.998,
        "max_weight": 10.0,  # of a level's error of x0
        # Where it is decided what happens when.
        "time": {"focus": 0.5, "low": 300, "high": 850},
    }


def discriminator() -> dict[str, Any]:
    """The official one, narrow; the fusion that interpolates the sound to the frames."""
    return {
        "name": "official",
        "video_channels": 3 * PATCH**2,
        "audio_channels": FOLD,
        "audio_conv": "1d",
        "model_channels": 32,
        "channel_mult": (1, 2, 3),
        "num_res_blocks": 1,
        "emb_dim": 64,
        "num_groups": 8,
        "dilation_period": 10,
        "fusion": {
            "kind": "interp_time_and_cat_ch_and_apply_transformer",
            "num_layers": 2,
            "channels": 96,
            "out_channels": 96,
            "num_heads": 3,
            "head_dim": 32,
        },
    }


def discriminator_training() -> dict[str, Any]:
    """Real pairs against pairs that the joint model made, by cross-entropy and denoising."""
    return {
        "batch_size": 32,
        "num_steps": 600,
        "learning_rate": 1e-3,
        "time": {"focus": 0.85, "low": 50, "high": 750},
        "objective": {"fakes": "generated_pairs", "denoising_samples": 8, "denoising_from": 200},
    }


def sampling() -> dict[str, Any]:
    """DPM-Solver++ of order 2, multistep: 20 calls of the model, to the clean signal."""
    solver = {"name": "dpm_solver_pp", "order": 2, "method": "multistep"}
    return {
        "samplers": {"video": solver | {"clip": 1.0}, "audio": solver | {"clip": None}},
        "num_steps": 20,
        "grid": "solver",
        "spacing": "logsnr",
        "to_clean": True,
        "model_time": "continuous",
    }
