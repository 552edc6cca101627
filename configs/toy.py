# SPDX-License-Identifier: Apache-2.0
"""Toy study: five joint distributions of two scalars, where everything has a closed form.

Does a discriminator turn two independent samplers into a joint one, which loss does it, and does it
also correct base models of another domain? Bases are exact marginals of the world (in-domain) or
the same shifted and widened (out-of-domain). Measured: energy distance to the true joint, beside
that of independent samples, of the exact log-ratio, and of a second set of true pairs (the floor).

    python launch.py toy --config=configs/toy.py --workdir=runs/toy

writes toy.png and toy.json. Hardware and time: two CPU cores, about a minute. Measured:
.assets/toy.png; cross-entropy alone learns the ratio and not its slope, the denoising term corrects
that (the paper's Figures 2 and 4).
"""

import ml_collections

from mmdisco_jax import recipes


def get_config() -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict(
        {
            "toy": {
                "worlds": ("ring", "moons", "checker", "pairs", "cross"),
                "bases": {
                    "in-domain": {"shift": 0.0, "widen": 0.0},
                    "out-of-domain": {"shift": 0.4, "widen": 0.5},
                },
                "schedule": recipes.linear_schedule(),
                "discriminator": {"width": 64, "depth": 3, "num_waves": 4},
                "losses": {
                    "cross-entropy": {"cross_entropy": 1.0, "denoising": 0.0},
                    "denoising": {"cross_entropy": 0.0, "denoising": 1.0},
                    "both": {"cross_entropy": 1.0, "denoising": 1.0},
                },
                "scales": recipes.both(1.0),
            },
            "train": {
                "batch_size": 256,
                "num_steps": 1000,
                "learning_rate": 3e-3,
                "warmup_steps": 20,
                "ema_decay": 0.98,
            },
        }
    )
