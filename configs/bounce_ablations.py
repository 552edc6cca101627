# SPDX-License-Identifier: Apache-2.0
r"""One factor of sampling changed at a time, from the default of configs/bounce.py.

    python launch.py sample   --config=configs/bounce_ablations.py --workdir=runs/ablations
    python launch.py evaluate --config=configs/bounce_ablations.py --workdir=runs/ablations

The main table: four sampling seeds, two training seeds of the discriminator (seed 1
ships; the other trained with --config.seed=0 in runs/bounce/discriminator_0):

    for s in 0 1 2 3; do python launch.py sample --config=configs/bounce_ablations.py:seeds \
        --workdir=runs/seeds/$s --config.sample.seed=$s --config.sample.num_samples=128; done
    python launch.py evaluate --config=configs/bounce_ablations.py:seeds --workdir=runs/seeds/0 \
        --config.sample.num_samples=128 \
        --config.evaluate.pool="('runs/seeds/1','runs/seeds/2','runs/seeds/3')"

Factors of training (losses, fakes, fusion) need a discriminator each:

    python launch.py train --config=configs/bounce.py:discriminator --workdir=runs/ce_only \
        --config.train.objective.denoising_weight=0
    python launch.py sample --config=configs/bounce_ablations.py:default --workdir=runs/ce_samples \
        --config.sample.discriminator_weights=runs/ce_only/weights.safetensors
"""

from typing import Any

import ml_collections

from configs import bounce

SCALES = (1.0, 3.0, 6.0, 10.0, 15.0)
ETA_0 = {"samplers": {m: {"eta": 0.0} for m in ("audio", "video")}}


def _scales(audio: float, video: float) -> dict:
    return {"scales": {"audio": audio, "video": video}}


def get_config(variants: str = "all") -> ml_collections.ConfigDict:
    """variants: "all"; "default" for guided samples alone; "seeds" for two training seeds."""
    config: Any = bounce.get_config()
    default = config.sample.variants.guided.scales.to_dict()
    chosen: dict[str, Any] = {"guided": {"scales": default}}
    if variants == "all":
        chosen |= {f"scale_{s:g}": _scales(s, s) for s in SCALES if s != default["audio"]}
        chosen |= {
            "independent": {},
            "independent_eta_0": ETA_0,
            "guided_eta_0": ETA_0 | {"scales": default},
            "audio_only": _scales(default["audio"], 0.0),
            "video_only": _scales(0.0, default["video"]),
            "interval_200_650": {"scales": default, "plan": {"interval": (200, 650)}},
            "every_2nd_step": {"scales": default, "plan": {"every": 2}},
        }
    elif variants == "seeds":
        second = "runs/bounce/discriminator_0/weights.safetensors"
        chosen["independent"] = {}
        chosen["guided_seed_0"] = chosen["guided"] | {"discriminator_weights": second}
    elif variants != "default":
        raise ValueError(f"unknown variants {variants!r}: choose all, default or seeds.")
    with config.unlocked():
        config.sample.variants = chosen
    config.sample.num_samples, config.sample.batch_size = 256, 64
    config.sample.num_media = 0
    return config
