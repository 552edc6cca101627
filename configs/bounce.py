# SPDX-License-Identifier: Apache-2.0
r"""The embedded default: a ball that bounces and rings, from data to guided samples on a laptop.

The argument chooses what `train` trains:

    python launch.py prepare  --config=configs/bounce.py --workdir=runs/bounce
    python launch.py train    --config=configs/bounce.py:video --workdir=runs/bounce/video
    python launch.py train    --config=configs/bounce.py:audio --workdir=runs/bounce/audio
    python launch.py train    --config=configs/bounce.py:discriminator \
        --workdir=runs/bounce/discriminator --config.seed=1
    python launch.py sample   --config=configs/bounce.py --workdir=runs/bounce/samples
    python launch.py evaluate --config=configs/bounce.py --workdir=runs/bounce/samples
"""

import ml_collections

TARGETS = ("video", "audio", "discriminator")


def _linear_schedule():
    return {"name": "linear", "num_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02}


def _train(target: str) -> dict:
    common = {
        "target": target,
        "warmup_steps": 100,
        "final_fraction": 0.02,
        "b2": 0.99,
        "clip_norm": 1.0,
        "weight_decay": 0.0,
        "ema_decay": 0.998,
        "num_microbatches": 1,  # of a batch, one after the other; more of them take less memory
        "max_weight": 10.0,
        # How noise levels are drawn: "uniform", with the share `time` of its own, or by what they
        # cost, "loss_second_moment" (Nichol and Dhariwal 2021), for a joint base model.
        "time_sampler": "uniform",
        "time": {"focus": 0.0, "low": 0, "high": 0},
        "log_every": 20,
        "save_every": 250,
        "keep": 3,  # checkpoints
        "init_from": "",  # a weights file to start from instead of random numbers
        "restore": "latest",  # or the number of a checkpoint's step
        "weights_dtype": "float16",  # of weights.safetensors; checkpoints keep float32
    }
    if target == "video":
        time = {"focus": 0.5, "low": 300, "high": 850}
        return common | {"batch_size": 32, "num_steps": 3500, "learning_rate": 1.5e-3, "time": time}
    if target == "audio":
        time = {"focus": 0.3, "low": 200, "high": 800}
        return common | {"batch_size": 64, "num_steps": 2500, "learning_rate": 1.5e-3, "time": time}
    return common | {
        "batch_size": 64,
        "num_steps": 1000,
        "learning_rate": 1.5e-3,
        # Above 750 sound and picture say nothing of each other; below 100 everything.
        "time": {"focus": 0.85, "low": 50, "high": 750},
        "objective": {
            "groups": 8,
            "shifts": 2,
            "fakes": "mismatched",
            "ce_weight": 1.0,
            "denoising_weight": 1.0,
            "denoising_samples": 16,
            "denoising_from": 300,
            "level_start": 0.3,
            "level_warmup_steps": 300,
            "text_dropout": 0.0,  # share of texts that are left out, of models that read text
        },
    }


def _sample() -> dict:
    return {
        "seed": 0,
        "num_samples": 8,
        "batch_size": 8,
        "num_media": 8,  # clips written as mp4 and wav, from the first
        # clip: limit of |x0|, pixels only; None for a latent that has none.
        "samplers": {
            "video": {"name": "ddim", "eta": 1.0, "clip": 1.0},
            "audio": {"name": "ddim", "eta": 1.0, "clip": None},
        },
        "num_steps": 50,  # calls of the model
        # "levels": whole noise levels; "solver": any levels, as the DPM-Solvers want them, down to
        # level 0, or with `to_clean` to the clean signal.
        "grid": "levels",
        "spacing": "trailing",
        "offset": 0,  # levels
        "to_clean": True,  # solver
        "model_time": "continuous",  # solver: or "truncated", as the official one
        "num_substeps": 1,
        "scales": {"audio": 0.0, "video": 0.0},
        # Of models that read text (config.texts): what --prompts sets, the prompts by which noise
        # is steered away ("": no text), and classifier-free guidance, of the discriminator's
        # residuals too: 1 is the model with the text alone.
        "prompts": (),
        "negative_prompt": "",
        "samples_per_prompt": 1,  # num_samples counts where there are no prompts
        "text_scales": {"audio": 1.0, "video": 1.0},
        "plan": {"interval": (), "every": 1},
        # One modality from media files, the other sampled to it: sample i takes the first clip of
        # file i of a folder, beginning anew after the last. weight 0: replacement; above:
        # reconstruction guidance.
        "condition": {
            "given": "",  # "audio" or "video"
            "media": "",  # a file or a folder
            "weight": 0.0,
            "on_short": "error",  # or "hold" the last picture, or "skip"
            "on_odd_rate": "error",  # too low a rate: or "keep" (fill up), or "skip"
        },
        "discriminator_weights": "",  # other than config.weights.discriminator
        # Whether weights may be used that were trained with other schedules than config.schedules.
        "force_schedule": False,
        # Each variant overrides the settings above; all start from the same noise.
        "variants": {
            "independent": {},
            "guided": {"scales": {"audio": 3.0, "video": 3.0}},
        },
    }


def _data() -> dict:
    return {
        "name": "bounce",
        "dir": "runs/data",
        "options": {"num_train": 16_000, "num_test": 1024, "seed": 0},
        "flip": "half",  # of clips are mirrored; "off", or "official" for all
        "num_workers": 0,  # processes that read batches ahead; 0 for threads
        "prepare_workers": 2,  # processes that cut media files
        "in_memory": True,
        # A folder: `prepare` encodes the training clips into it once, and `train` reads them from
        # there. For codecs that cost more than reading; these do not. Not with flips.
        "latents": "",
    }


def _codecs() -> dict:
    return {
        "video": {"name": "pixels"},
        "audio": {
            "name": "log_mel",
            "sample_rate_hz": 16_000,
            "num_frames": 64,
            "num_mels": 32,
            "hop_length": 500,
            "n_fft": 1024,
            "low": -4.5,
            "high": 0.8,
            "mean": -0.85,
            "scale": 0.4,
        },
    }


def _bases() -> dict:
    return {
        "video": {
            "name": "patch_transformer",
            "sample_shape": (16, 32, 32, 3),
            "patch": (1, 8, 8),
            "patch_width": 64,
            "width": 192,
            "depth": 6,
            "num_heads": 4,
            "taps": 5,
        },
        "audio": {
            "name": "patch_transformer",
            "sample_shape": (64, 32, 1),
            "patch": (4, 32),
            "patch_width": 0,
            "width": 160,
            "depth": 5,
            "num_heads": 4,
            "taps": 5,
        },
    }


def _discriminator() -> dict:
    return {
        "name": "aligned_on_bases",
        "in_features": {"audio": 160, "video": 192},
        "num_moments": 16,
        "width": 128,
        "tower_depth": 1,
        "fusion_depth": 2,
        "num_heads": 4,
        "taps": 5,
        "fusion": "products",
    }


def _evaluate() -> dict:
    return {
        "metrics": ("bounce", "proxy_frechet_video", "proxy_frechet_audio", "av_align"),
        "num_real": 1024,  # test clips: half to compare with, half to be compared
        "replicates": 1000,
        "seed": 0,
        # Noise levels at which the discriminator itself is measured, on so many held-out pairs.
        "levels": (50, 150, 250, 350, 450, 550, 650, 750),
        "level_pairs": 128,
        "pool": (),  # workdirs of other sampling seeds, measured together with this one
    }


def get_config(target: str = "discriminator") -> ml_collections.ConfigDict:
    if target not in TARGETS:
        raise ValueError(f"unknown target {target!r}: choose one of {', '.join(TARGETS)}.")
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.data = _data()
    config.clip = {"seconds": 2.0, "fps": 8, "sample_rate_hz": 16_000}
    config.schedules = {"audio": _linear_schedule(), "video": _linear_schedule()}
    config.codecs = _codecs()
    config.bases = _bases()
    # Text encoders, as in configs/vggsound_audioldm_animatediff.py; {} for models without text.
    config.texts = {}
    config.discriminator = _discriminator()
    # A network that enlarges the samples, as in configs/super_resolution.py; {} for none.
    config.super_resolution = {}
    config.guidance = {"log_ratio": "logit"}
    config.weights = {
        "video": "mmdisco_jax/weights/bounce_video.safetensors",
        "audio": "mmdisco_jax/weights/bounce_audio.safetensors",
        "discriminator": "mmdisco_jax/weights/bounce_discriminator.safetensors",
        "fakes": "",
    }
    # Samples of the base models for training D on generated fakes; 0: none. Indices from
    # first_index on, so that no fake is ever a sample that is measured.
    config.fakes = {
        "num_samples": 0,
        "batch_size": 128,
        "first_index": 1_000_000,
        "variant": "independent",  # of config.sample.variants; unguided
    }
    config.sample = _sample()
    config.evaluate = _evaluate()
    # parts: guidance, official (timed, as ratios), training, sampling (timed), estimate (XLA's
    # account of a step and of a call, compiled and not run), text_step (the same of a step of
    # models that read text).
    config.bench = {"batch_size": 8, "repeats": 10, "parts": ("guidance", "official")}
    config.train = _train(target)
    config.mesh = {"data": -1, "fsdp": 1}
    config.lock()
    return config
