# SPDX-License-Identifier: Apache-2.0
r"""Text to sounding video: AudioLDM and AnimateDiff, made to agree (MMDisCo's main result).

    python launch.py sample --config=configs/vggsound_audioldm_animatediff.py \
        --workdir=runs/text/samples --prompts="a dog barks" --prompts=more.txt

The base models come from Hugging Face at their first use, about 10 GB; or set config.weights.audio,
.video and .motion to folders that hold them. config.weights.discriminator is the released
audioldm_animediff_vggsound.pt, converted:

    python launch.py convert --config=configs/convert.py:mmdisco_audioldm_animatediff \
        --workdir=runs/text --config.convert.source=audioldm_animediff_vggsound.pt \
        --config.convert.target=discriminator.safetensors

or one of your own, trained on VGGSound or any folder of captioned clips (the argument is
FOLDER[,SAMPLER[,DATASET]], SAMPLER one of `SAMPLERS`, DATASET one of configs/folder.py):

    python launch.py prepare --config=configs/vggsound_audioldm_animatediff.py:/path/to/vggsound \
        --workdir=runs/text --config.fakes.num_samples=4096
    python launch.py train   --config=configs/vggsound_audioldm_animatediff.py:/path/to/vggsound \
        --workdir=runs/text/discriminator --config.weights.fakes=runs/text/fakes

16 frames of 256 x 256 at 8 fps, 2 s at 16 kHz. The paper's scales: 2.5 and 7.5 of the text, 1 and 8
of the discriminator; 50 steps of DDPM.
"""

from typing import Any

import ml_collections

from configs import folder

FPS, SECONDS, RATE_HZ, SIZE = 8, 2.0, 16_000, 256
SAMPLERS = ("ddpm_50", "ddim_50", "ddim_25")
_LEVELS = 1000


def get_config(argument: str = ".") -> ml_collections.ConfigDict:
    path, sampler, dataset = (*argument.split(","), "", "")[:3]
    sampler = sampler or SAMPLERS[0]
    if sampler not in SAMPLERS:
        raise ValueError(f"unknown sampler {sampler!r}: choose one of {', '.join(SAMPLERS)}.")
    config: Any = folder.get_config(f"{path},discriminator,{dataset or 'vggsound'}")
    with config.unlocked():
        config.data.options.update({"fps": FPS, "height": SIZE, "width": SIZE})
        config.data.update({"flip": "off", "latents": "runs/text/latents"})
        config.clip = {"seconds": SECONDS, "fps": FPS, "sample_rate_hz": RATE_HZ}
        config.schedules = schedules()
        config.weights = weights()
        config.texts = texts()
        config.codecs = codecs()
        config.bases = bases()
        config.discriminator = discriminator()
        config.guidance.log_ratio = "official"
        set_sampling(config, sampler)
        config.fakes.update({"batch_size": 8, "variant": "independent"})
        config.train.update(training())
        config.evaluate.levels = ()
        config.bench.update({"batch_size": 1, "parts": ("text_step",)})
        # Of an embedded prompt, for `bench`.
        config.bench.text_shapes = {"audio": (512,), "video": (77, 768)}
    return config


def schedules() -> dict[str, Any]:
    """As the models were trained: their scheduler_config.json, which is compared."""
    common = {"name": "scaled_linear", "num_timesteps": _LEVELS}
    return {
        "audio": common | {"beta_start": 0.0015, "beta_end": 0.0195},
        "video": common | {"beta_start": 0.00085, "beta_end": 0.012},
    }


def weights() -> dict[str, str]:
    """Hugging Face ids, or folders in diffusers layout; and files."""
    return {
        "audio": "cvssp/audioldm-m-full",
        "video": "SG161222/Realistic_Vision_V5.1_noVAE",
        "motion": "guoyww/animatediff-motion-adapter-v1-5-2",
        "discriminator": "runs/text/discriminator.safetensors",
        "fakes": "",
    }


def texts() -> dict[str, Any]:
    """`weights` is a key of config.weights. length: tokens of a prompt; 0 is the tokenizer's."""
    common = {"folder": "text_encoder", "tokenizer": "tokenizer", "dtype": "float32"}
    return {
        "audio": common | {"name": "clap", "weights": "audio", "length": 0},
        "video": common | {"name": "clip", "weights": "video", "length": 0},
    }


def codecs() -> dict[str, Any]:
    """chunk_: how much is coded at once, which bounds the memory."""
    return {
        "audio": {
            "name": "vae_mel",
            "weights": "audio",
            "folder": "vae",
            "vocoder": "vocoder",
            "num_samples": round(SECONDS * RATE_HZ),
            "chunk_clips": 8,
            "dtype": "float32",
        },
        "video": {
            "name": "vae_frames",
            "weights": "video",
            "folder": "vae",
            "chunk_frames": 8,
            "dtype": "float32",
        },
    }


def bases() -> dict[str, Any]:
    """adapter: a key of config.weights, for a 2-D U-Net that is to move. preset: the architecture
    when the weights are not named, for estimates.
    """
    common = {"folder": "unet", "param_dtype": "bfloat16", "compute_dtype": "bfloat16"}
    common["remat"] = "none"
    audio, video = (50, 16, 8), (round(SECONDS * FPS), SIZE // 8, SIZE // 8, 4)
    return {
        "audio": common
        | {"name": "audioldm", "sample_shape": audio, "adapter": "", "preset": "audioldm_m_full"},
        "video": common
        | {
            "name": "animatediff",
            "sample_shape": video,
            "adapter": "motion",
            "preset": "animatediff_1_5_2",
        },
    }


def discriminator() -> dict[str, Any]:
    """The released one: 33,261,313 parameters."""
    return {
        "name": "official",
        "video_channels": 4,
        "audio_channels": 8,
        "audio_conv": "2d",
        "model_channels": 128,
        "channel_mult": (1, 2, 4),
        "num_res_blocks": 4,
        "emb_dim": 128,
        "num_groups": 32,
        "dilation_period": 1,
        "video_text_dim": 768,
        "audio_text_dim": 512,
        "fusion": {"kind": "aggregate_time_and_cat_ch"},
    }


def set_sampling(config: Any, sampler: str) -> None:
    name, steps = sampler.split("_")
    options = {
        "ddpm": {"name": "ddpm", "clip": None, "stride": _LEVELS // int(steps)},
        "ddim": {"name": "ddim", "clip": None, "eta": 0.0},
    }
    config.sample.samplers = {"audio": options[name], "video": options[name]}
    config.sample.update(
        {
            "batch_size": 1,
            "num_media": 1000,  # what was asked for in words is to be seen and heard, all of it
            "num_steps": int(steps),
            "spacing": "leading",
            "offset": 1,
            "text_scales": {"audio": 2.5, "video": 7.5},
            "variants": {
                "independent": {},
                "guided": {"scales": {"audio": 1.0, "video": 8.0}},
            },
        }
    )


def training() -> dict[str, Any]:
    """Of the discriminator. The authors' recipe is not known but for its two losses."""
    return {
        "batch_size": 64,
        "num_steps": 20_000,
        "learning_rate": 1e-4,
        "warmup_steps": 500,
        "b2": 0.999,
        "ema_decay": 0.999,
        "time": {"focus": 0.0, "low": 0, "high": 0},
        "objective": {
            "groups": 64,
            "shifts": 1,
            "fakes": "generated_pairs",
            "ce_weight": 1.0,
            "denoising_weight": 1.0,
            "denoising_samples": 16,
            "denoising_from": 2000,
            "level_start": 1.0,
            "level_warmup_steps": 0,
            "text_dropout": 0.1,
        },
    }
