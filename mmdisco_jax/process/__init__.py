# SPDX-License-Identifier: Apache-2.0
"""Diffusion process: noise schedules, forward noising, prediction types, timestep sampling."""

from mmdisco_jax.registry import Registry

SCHEDULES = Registry(
    "noise schedule",
    {
        "linear": "mmdisco_jax.process.schedules:linear",
        "scaled_linear": "mmdisco_jax.process.schedules:scaled_linear",
        "cosine": "mmdisco_jax.process.schedules:cosine",
    },
)
