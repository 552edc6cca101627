# SPDX-License-Identifier: Apache-2.0
r"""One factor changed at a time, from the default of configs/bounce.py, 256 clips each.

The argument chooses the factor: scales, samplers, plans, training, fusion or seeds.

    for f in scales samplers plans; do
      python launch.py sample   --config=configs/bounce_ablations.py:$f --workdir=runs/ablations/$f
      python launch.py evaluate --config=configs/bounce_ablations.py:$f --workdir=runs/ablations/$f
    done

The factors of training need discriminators of their own (seed 1, as the shipped one):

    train="python launch.py train --config=configs/bounce.py:discriminator --config.seed=1"
    $train --workdir=runs/bounce/ce_only --config.train.objective.denoising_weight=0
    $train --workdir=runs/bounce/denoising_only --config.train.objective.ce_weight=0 \
        --config.train.objective.denoising_from=0
    python launch.py prepare --config=configs/bounce.py --workdir=runs/bounce \
        --config.fakes.num_samples=2048
    $train --workdir=runs/bounce/generated --config.train.objective.fakes=generated \
        --config.weights.fakes=runs/bounce/fakes

and then `sample` and `evaluate` with bounce_ablations.py:training. A fusion is a setting of the
network, so each has its own training, sample and evaluate, all three with the same override:

    $train --workdir=runs/bounce/aggregate --config.discriminator.fusion=aggregate_time_and_cat_ch
    python launch.py sample --config=configs/bounce_ablations.py:fusion \
        --workdir=runs/ablations/aggregate --config.discriminator.fusion=aggregate_time_and_cat_ch \
        --config.weights.discriminator=runs/bounce/aggregate/weights.safetensors

The main table: four sampling seeds, two training seeds of the discriminator (seed 1 ships; the
other trained with --config.seed=0 in runs/bounce/discriminator_0):

    for s in 0 1 2 3; do python launch.py sample --config=configs/bounce_ablations.py:seeds \
        --workdir=runs/seeds/$s --config.sample.seed=$s --config.sample.num_samples=128; done
    python launch.py evaluate --config=configs/bounce_ablations.py:seeds --workdir=runs/seeds/0 \
        --config.sample.num_samples=128 \
        --config.evaluate.pool="('runs/seeds/1','runs/seeds/2','runs/seeds/3')"

Hardware: two CPU cores; a training of 1,000 steps takes 20 minutes, 256 guided clips 4. Measured:
every table of configs/README.md.
"""

from typing import Any

import ml_collections

from mmdisco_jax import recipes
from mmdisco_jax.recipes import both, guided

SCALES = (1.0, 3.0, 6.0, 10.0, 15.0)
ETA_0 = {"samplers": both({"eta": 0.0})}
DPM_SOLVER = {
    "num_steps": 20,
    "samplers": both(
        {"name": "dpm_solver_pp_2m", "clip": None}, {"name": "dpm_solver_pp_2m", "clip": 1.0}
    ),
}


def _trained(name: str) -> dict[str, Any]:
    return {"discriminator_weights": f"runs/bounce/{name}/weights.safetensors"}


FACTORS: dict[str, dict[str, Any]] = {
    "scales": {"independent": {}} | {f"scale_{s:02.0f}": guided(s) for s in SCALES},
    "samplers": {
        "independent_eta_0": ETA_0,
        "guided_eta_0": ETA_0 | guided(3.0),
        "independent_dpm_20": DPM_SOLVER,
        "guided_dpm_20": DPM_SOLVER | guided(3.0),
    },
    "plans": {
        "interval_200_650": guided(3.0) | {"plan": {"interval": (200, 650)}},
        "every_2nd_step": guided(3.0) | {"plan": {"every": 2}},
        "audio_only": guided(3.0, 0.0),
        "video_only": guided(0.0, 3.0),
    },
    "training": {
        "ce_only": guided(3.0) | _trained("ce_only"),
        "ce_only_scale_1": guided(1.0) | _trained("ce_only"),
        "denoising_only": guided(3.0) | _trained("denoising_only"),
        "generated_fakes": guided(3.0) | _trained("generated"),
    },
    "fusion": {"guided": guided(3.0)},
    "seeds": {
        "independent": {},
        "guided": guided(3.0),
        "guided_seed_0": guided(3.0) | _trained("discriminator_0"),
    },
}


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    factor = recipes.arguments(argument, "factor", factor="scales")["factor"]
    recipes.choice("factor", factor, tuple(FACTORS))
    names = ("video", "audio", "discriminator")
    sampling = {"num_samples": 256, "batch_size": 64, "num_media": 0, "variants": FACTORS[factor]}
    return ml_collections.ConfigDict(
        {
            "data": {
                "name": "bounce",
                "options": {"num_train": 16_000, "num_test": 1024, "seed": 0},
            },
            "clip": recipes.clip_format(seconds=2.0, fps=8, size=32, rate=16_000),
            "bases": recipes.patch_transformers(size=32, num_mels=32, mel_mean=-0.85),
            "discriminator": recipes.aligned_on_bases(),
            "weights": {m: f"mmdisco_jax/weights/bounce_{m}.safetensors" for m in names},
            "sample": recipes.ddim_sampling(eta=1.0) | sampling,
            "evaluate": {
                "metrics": ("bounce", "proxy_frechet_video", "proxy_frechet_audio", "av_align"),
            },
        }
    )
