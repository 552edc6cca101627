# SPDX-License-Identifier: Apache-2.0
"""Functions that config files share: parts of experiments as plain dicts of settings.

A config in `configs/` is one experiment. It takes what it has in common with others from here, so
that no experiment inherits from another, and states the rest itself.
"""

import math
import re
from typing import Any

Settings = dict[str, Any]

# Options of each dataset of media files beside those that all share.
MEDIA_DATASETS: dict[str, Settings] = {
    "folder": {"files": "", "table": "", "test_fraction": 0.1},
    "landscape": {"clip_seconds": 10.0},
    "aist_plus_plus": {"clip_seconds": 6.4},
    "long_videos": {"clip_seconds": 34.0, "skip_seconds": 10.0},
    "vggsound": {"clip_seconds": 10.0, "table": "vggsound.csv"},
}


def arguments(text: str, first: str, **defaults: Any) -> Settings:
    """Named arguments of a config, such as "path=/my videos,seconds=10,train=video".

    Args:
      text: what follows the colon of `--config=FILE:arguments`. Values may hold any character; a
        comma ends a value only where the name of another argument and "=" follow it.
      first: argument that a text without a name at its beginning is the value of.
      defaults: every argument and its default, whose type its value is converted to.

    Raises:
      ValueError: an unknown name, or a value that is not of its default's type.
    """
    names = "|".join(map(re.escape, defaults))
    parts = re.split(rf",(?=(?:{names})=)", text) if text else []
    given: Settings = {}
    for number, part in enumerate(parts):
        name, equals, value = part.partition("=")
        if not (equals and name in defaults):
            if number or (equals and name.isidentifier()):
                raise ValueError(
                    f"unknown argument {name!r} of the config: choose from {', '.join(defaults)}."
                )
            name, value = first, part
        given[name] = _converted(name, value, defaults[name])
    return {**defaults, **given}


def _converted(name: str, value: str, default: Any) -> Any:
    kind = type(default)
    try:
        return kind(value)
    except ValueError as error:
        raise ValueError(
            f"argument {name}={value!r} of the config must be of type {kind.__name__}."
        ) from error


def choice(name: str, value: str, known: tuple[str, ...]) -> str:
    """`value`, if it is one of `known`; ValueError names the choices."""
    if value not in known:
        raise ValueError(f"unknown {name} {value!r}: choose one of {', '.join(known)}.")
    return value


# Schedules and samplers.
def linear_schedule() -> Settings:
    """Linear noise schedule of 1000 levels (Ho et al. 2020)."""
    return {"name": "linear", "num_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02}


def both(audio: Any, video: Any = None) -> Settings:
    """A value for each of the two modalities; the same one where `video` is left out."""
    return {"audio": audio, "video": audio if video is None else video}


def guided(audio: float, video: float | None = None) -> Settings:
    """A variant with joint guidance of these scales."""
    return {"scales": both(audio, video)}


# Small models that are trained here.
def patch_transformers(
    *, size: int, num_mels: int, mel_mean: float, schedule: Settings | None = None
) -> Settings:
    """Base models of pixels and of log-mel spectrograms, for clips with frames of `size` pixels.

    A video patch has 8 pixels a side, and more where a frame would have more than 64 patches. An
    audio patch is four spectrogram frames, which are about one video frame.
    """
    side = max(8, size // 8)
    common = {"name": "patch_transformer", "schedule": schedule or linear_schedule()}
    common |= {"num_heads": 4, "taps": 5}
    return {
        "video": common
        | {
            "codec": {"name": "pixels"},
            "patch": (1, side, side),
            "patch_width": 64,
            "width": 192,
            "depth": 6,
        },
        "audio": common
        | {
            "codec": {
                "name": "log_mel",
                "num_mels": num_mels,
                "low": -4.5,
                "high": 0.8,
                "mean": mel_mean,  # of the spectrograms, so that they have about unit variance
                "scale": 0.4,
            },
            "patch": (4, num_mels),
            "patch_width": 0,
            "width": 160,
            "depth": 5,
        },
    }


def aligned_on_bases() -> Settings:
    """Time-aligned discriminator on the features of the base models."""
    return {
        "name": "aligned_on_bases",
        "width": 128,
        "tower_depth": 1,
        "fusion_depth": 2,
        "num_heads": 4,
        "taps": 5,
        "fusion": "products",
    }


def patch_training(target: str) -> Settings:
    """Training of the small base models and of their discriminator, on two CPU cores."""
    if target == "video":
        time = {"focus": 0.5, "low": 300, "high": 850}
        settings = {"batch_size": 32, "num_steps": 3500, "time": time}
    elif target == "audio":
        time = {"focus": 0.3, "low": 200, "high": 800}
        settings = {"batch_size": 64, "num_steps": 2500, "time": time}
    else:
        # Above 750 sound and picture say nothing of each other; below 100 everything.
        time = {"focus": 0.85, "low": 50, "high": 750}
        settings = {"batch_size": 64, "num_steps": 1000, "time": time}
    return {"target": target, "learning_rate": 1.5e-3} | settings


def ddim_sampling(eta: float = 1.0) -> Settings:
    """50 steps of DDIM; the clean signal is clipped in pixels only, for a mel has no limit."""
    step = {"name": "ddim", "eta": eta}
    return {
        "samplers": both(step | {"clip": None}, step | {"clip": 1.0}),
        "num_steps": 50,
        "variants": {"independent": {}, "guided": guided(3.0)},
    }


# Media files.
def media_data(
    dataset: str, path: str, *, seconds: float, fps: float, size: int, rate: int, spatial: str
) -> Settings:
    """Section `data` of an experiment on media files.

    dataset: a key of MEDIA_DATASETS, described in data/DATASET/README.md. spatial: "centre_crop",
    "pad" with black, or "resize".
    """
    choice("dataset", dataset, tuple(MEDIA_DATASETS))
    own = dict(MEDIA_DATASETS[dataset])
    if "clip_seconds" in own:
        own["clip_seconds"] = _whole_frames(own["clip_seconds"], fps)
    return {
        "name": dataset,
        "in_memory": False,
        "options": {
            "clip_seconds": seconds,
            **own,
            "folder": path,
            "fps": fps,
            "height": size,
            "width": size,
            "sample_rate_hz": rate,
            # What to do with a file that has a problem: "error", "skip" (it is listed in
            # quarantine.json), or a remedy; data/README.md lists them.
            "on_missing_file": "skip",
            "on_corrupt": "skip",
            "on_missing_video": "skip",
            "on_missing_audio": "skip",
            "on_short": "skip",
            "on_duplicate": "skip",
            "on_silent": "keep",
            "on_odd_rate": "keep",
            "spatial": spatial,
            "seed": 0,
        },
    }


def _whole_frames(seconds: float, fps: float) -> float:
    """The longest record of at most `seconds` that is a whole number of frames."""
    frames = seconds * fps
    if abs(frames - round(frames)) <= 1e-6 * frames:
        return seconds
    return math.floor(frames) / fps


def clip_format(*, seconds: float, fps: float, size: int, rate: int) -> Settings:
    """Section `clip` of an experiment on square frames."""
    return {
        "seconds": seconds,
        "fps": fps,
        "height": size,
        "width": size,
        "sample_rate_hz": rate,
    }


# MM-Diffusion.
def mm_diffusion() -> Settings:
    """MM-Diffusion at the paper's size (`landscape_linear1000_16x64x64_shiftT_window148`)."""
    return {
        "name": "mm_diffusion",
        "codec": {"video": {"name": "pixels"}, "audio": {"name": "waveform", "scale": 1.0}},
        "schedule": both(linear_schedule()),
        "prediction": "eps",
        "network": {"dropout": 0.1, "remat": "blocks", "compute_dtype": "bfloat16"},
    }


def mm_diffusion_training() -> Settings:
    """The authors' recipe, with a warm-up and clipping that theirs lacks."""
    return {
        "target": "joint",
        "batch_size": 128,
        "num_steps": 100_000,
        "learning_rate": 1e-4,
        "warmup_steps": 1000,
        "final_fraction": 1.0,
        "b2": 0.999,
        "ema_decay": 0.9999,
        "max_weight": None,  # every level's error of eps counts alike
    }


def mm_diffusion_sampling() -> Settings:
    """MMDisCo's: DPM-Solver++ of order 3, single-step, 20 calls, dynamic thresholding."""
    solver = {"name": "dpm_solver_pp", "order": 3, "clip": 1.0, "quantile": 0.995}
    return {
        "samplers": both(solver),
        "num_steps": 20,
        "grid": "solver",
        "spacing": "logsnr",
        "to_clean": False,
        "model_time": "truncated",
        "variants": {"joint": {}, "guided": guided(1.0)},
    }


def official_mm_discriminator() -> Settings:
    """MMDisCo's discriminator for MM-Diffusion: 12,682,241 parameters."""
    return {
        "name": "official",
        "num_res_blocks": 2,
        "dilation_period": 10,
        "fusion": {"kind": "aggregate_time_and_cat_ch"},
    }


def small_mm_diffusion(*, patch: int, fold: int, audio_scale: float) -> Settings:
    """MM-Diffusion, narrow: one block a level, three levels, for two CPU cores.

    patch, fold: pixels (a side) and samples that share a position. One position for each, as at the
    paper's size, takes .63 s of a sample's training step on two cores even with 16 channels.
    """
    return {
        "name": "mm_diffusion",
        "codec": {
            "video": {"name": "pixels", "patch": patch},
            "audio": {"name": "waveform", "scale": audio_scale, "fold": fold},
        },
        "schedule": both(linear_schedule()),
        # 32 channels cannot carry the noise of 48 or 40 through, but the signal they can.
        "prediction": "x0",
        "network": {
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
        },
    }


def small_mm_training() -> Settings:
    """Training of the narrow MM-Diffusion."""
    return {
        "target": "joint",
        "batch_size": 8,
        "num_steps": 2800,
        "learning_rate": 1.5e-3,
        "warmup_steps": 50,
        "max_weight": 10.0,  # of a level's error of x0
        # Where it is decided what happens when.
        "time": {"focus": 0.5, "low": 300, "high": 850},
    }


def small_mm_discriminator() -> Settings:
    """The official discriminator, narrow; its fusion interpolates the sound to the frames."""
    return {
        "name": "official",
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


def small_mm_discriminator_training() -> Settings:
    """Real pairs against pairs that the joint model made, by cross-entropy and denoising."""
    return {
        "target": "discriminator",
        "batch_size": 32,
        "num_steps": 600,
        "learning_rate": 1e-3,
        "time": {"focus": 0.85, "low": 50, "high": 750},
        "objective": {"fakes": "generated_pairs", "denoising_samples": 8, "denoising_from": 200},
    }


def small_mm_sampling() -> Settings:
    """DPM-Solver++ of order 2, multistep: 20 calls of the model, to the clean signal."""
    solver = {"name": "dpm_solver_pp", "order": 2, "method": "multistep"}
    return {
        "samplers": both(solver | {"clip": None}, solver | {"clip": 1.0}),
        "num_steps": 20,
        "grid": "solver",
        "spacing": "logsnr",
        "to_clean": True,
        "model_time": "continuous",
    }


# Super-resolution.
def super_resolution_network() -> Settings:
    """MM-Diffusion's super-resolution network (AIST++_SR, Landscape_SR): 311,027,910 parameters."""
    return {
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
    }


def super_resolution_pairs() -> Settings:
    """Degradations of the small pictures in training; see inputs/degradations.py."""
    return {
        "frames_per_clip": 1,
        "noise_probability": 0.5,
        "max_noise": 20.0,
        "jpeg_probability": 0.5,
        "jpeg_quality": (20, 80),
    }
