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
"""

from typing import Any

import ml_collections

from configs import bounce

SCALES = (1.0, 3.0, 6.0, 10.0, 15.0)
ETA_0 = {"samplers": {m: {"eta": 0.0} for m in ("audio", "video")}}
DPM_SOLVER = {
    "num_steps": 20,
    "samplers": {
        "video": {"name": "dpm_solver_pp_2m", "clip": 1.0},
        "audio": {"name": "dpm_solver_pp_2m", "clip": None},
    },
}


def _scales(audio: float, video: float) -> dict:
    return {"scales": {"audio": audio, "video": video}}


def _trained(name: str) -> dict:
    return {"discriminator_weights": f"runs/bounce/{name}/weights.safetensors"}


def get_config(factor: str = "scales") -> ml_collections.ConfigDict:
    config: Any = bounce.get_config()
    scales = config.sample.variants.guided.scales.to_dict()
    guided = {"scales": scales}
    factors = {
        "scales": {"independent": {}} | {f"scale_{s:02.0f}": _scales(s, s) for s in SCALES},
        "samplers": {
            "independent_eta_0": ETA_0,
            "guided_eta_0": ETA_0 | guided,
            "independent_dpm_20": DPM_SOLVER,
            "guided_dpm_20": DPM_SOLVER | guided,
        },
        "plans": {
            "interval_200_650": guided | {"plan": {"interval": (200, 650)}},
            "every_2nd_step": guided | {"plan": {"every": 2}},
            "audio_only": _scales(scales["audio"], 0.0),
            "video_only": _scales(0.0, scales["video"]),
        },
        "training": {
            "ce_only": guided | _trained("ce_only"),
            "ce_only_scale_1": _scales(1.0, 1.0) | _trained("ce_only"),
            "denoising_only": guided | _trained("denoising_only"),
            "generated_fakes": guided | _trained("generated"),
        },
        "fusion": {"guided": guided},
        "seeds": {
            "independent": {},
            "guided": guided,
            "guided_seed_0": guided | _trained("discriminator_0"),
        },
    }
    if factor not in factors:
        raise ValueError(f"unknown factor {factor!r}: choose one of {', '.join(factors)}.")
    with config.unlocked():
        config.sample.variants = factors[factor]
    config.sample.num_samples, config.sample.batch_size = 256, 64
    config.sample.num_media = 0
    config.evaluate.levels = ()  # of the discriminator, not of samples: see configs/bounce.py
    return config
