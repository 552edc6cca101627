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

or one of your own, trained on VGGSound or any folder of captioned clips:

    python launch.py prepare --config=configs/vggsound_audioldm_animatediff.py:/path/to/vggsound \
        --workdir=runs/text --config.fakes.num_samples=4096
    python launch.py train   --config=configs/vggsound_audioldm_animatediff.py:/path/to/vggsound \
        --workdir=runs/text/discriminator --config.weights.fakes=runs/text/fakes

Arguments, by name: path (a first argument without a name is the path), sampler (one of `SAMPLERS`),
dataset (as in configs/folder.py). 16 frames of 256 x 256 at 8 fps, 2 s at 16 kHz. The paper's
scales: 2.5 and 7.5 of the text, 1 and 8 of the discriminator; 50 steps of DDPM.

Licences: AudioLDM CC BY-NC-SA 4.0; Realistic Vision CreativeML Open RAIL-M; motion adapter
Apache-2.0; MMDisCo's discriminator: see its repository.

Hardware and time: a GPU with 24 GB. By XLA's account a guided step of one pair, bf16, is 8,349
GFLOP and 14.5 GB at its peak, an unguided one 7,968 and 13.8: joint guidance adds 4.8 %. No
generated clips are measured yet.
"""

import ml_collections

from mmdisco_jax import recipes

SAMPLERS = ("ddpm_50", "ddim_50", "ddim_25")
_LEVELS = 1000


def _stepper(sampler: str) -> tuple[recipes.Settings, int]:
    name, steps = sampler.split("_")
    if name == "ddim":
        return {"name": "ddim", "clip": None, "eta": 0.0}, int(steps)
    return {"name": "ddpm", "clip": None, "stride": _LEVELS // int(steps)}, int(steps)


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    given = recipes.arguments(argument, "path", path=".", sampler=SAMPLERS[0], dataset="vggsound")
    recipes.choice("sampler", given["sampler"], SAMPLERS)
    stepper, num_steps = _stepper(given["sampler"])
    clip = {"seconds": 2.0, "fps": 8, "size": 256, "rate": 16_000}
    data = recipes.media_data(given["dataset"], given["path"], spatial="centre_crop", **clip)
    return ml_collections.ConfigDict(
        {
            "data": data | {"flip": "off", "latents": "runs/text/latents"},
            "clip": recipes.clip_format(**clip),
            "bases": {"audio": {"name": "audioldm"}, "video": {"name": "animatediff"}},
            # Hugging Face ids, or folders in diffusers layout; and files.
            "weights": {
                "audio": "cvssp/audioldm-m-full",
                "video": "SG161222/Realistic_Vision_V5.1_noVAE",
                "motion": "guoyww/animatediff-motion-adapter-v1-5-2",
                "discriminator": "runs/text/discriminator.safetensors",
            },
            # The released discriminator, whose sizes are the defaults: 33,261,313 parameters.
            "discriminator": {
                "name": "official",
                "fusion": {"kind": "aggregate_time_and_cat_ch"},
            },
            "guidance": {"log_ratio": "official"},
            "fakes": {"batch_size": 8},
            "sample": {
                "samplers": recipes.both(stepper),
                "batch_size": 1,
                "num_media": 1000,  # media of every prompt
                "num_steps": num_steps,
                "spacing": "leading",
                "offset": 1,
                "text_scales": recipes.both(2.5, 7.5),
                "variants": {"independent": {}, "guided": recipes.guided(1.0, 8.0)},
            },
            # Of the discriminator. The authors' recipe is not known but for its two losses.
            "train": {
                "batch_size": 64,
                "num_steps": 20_000,
                "learning_rate": 1e-4,
                "warmup_steps": 500,
                "b2": 0.999,
                "ema_decay": 0.999,
                "objective": {
                    "groups": 64,
                    "shifts": 1,
                    "fakes": "generated_pairs",
                    "denoising_from": 2000,
                    "level_start": 1.0,
                    "level_warmup_steps": 0,
                    "text_dropout": 0.1,
                },
            },
            "evaluate": {"metrics": ("av_align", "proxy_frechet_video", "proxy_frechet_audio")},
            "bench": {"batch_size": 1, "parts": ("text_step",)},
        }
    )
