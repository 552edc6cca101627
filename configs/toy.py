# SPDX-License-Identifier: Apache-2.0
"""Toy experiments: five joint distributions of two scalars, where everything has a closed form.

What: does a discriminator turn two independent samplers into a joint one, which loss does it, and
does it also mend base models of another domain? Bases are exact marginals of the world (in-domain)
or the same shifted and widened (out-of-domain). Measured: energy distance to the true joint, beside
that of independent samples, of the exact log-ratio, and of a second set of true pairs (the floor).

    python launch.py toy --config=configs/toy.py --workdir=runs/toy

writes toy.png and toy.json. About a minute on two CPU cores.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.worlds = ("ring", "moons", "checker", "pairs", "cross")
    config.bases = {
        "in-domain": {"shift": 0.0, "widen": 0.0},
        "out-of-domain": {"shift": 0.4, "widen": 0.5},
    }
    linear = {"name": "linear", "num_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02}
    config.schedules = {"audio": linear, "video": linear}
    config.discriminator = {"width": 64, "depth": 3, "num_waves": 4}
    config.losses = {
        "cross-entropy": {"cross_entropy": 1.0, "denoising": 0.0},
        "denoising": {"cross_entropy": 0.0, "denoising": 1.0},
        "both": {"cross_entropy": 1.0, "denoising": 1.0},
    }
    config.train = {
        "batch_size": 256,
        "num_steps": 1000,
        "learning_rate": 3e-3,
        "warmup_steps": 20,
        "final_fraction": 0.02,
        "b2": 0.99,
        "clip_norm": 1.0,
        "weight_decay": 0.0,
        "ema_decay": 0.98,
    }
    config.sampler = {"name": "ddim", "num_steps": 50, "spacing": "trailing", "options": {}}
    config.strength = {"audio": 1.0, "video": 1.0}
    config.num_samples = 1000
    config.num_reference = 2000
    config.num_replicates = 100
    config.lock()
    return config
