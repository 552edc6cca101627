# SPDX-License-Identifier: Apache-2.0
"""The forward process: how signal becomes noise, and what a network may predict about it."""

from mmdisco_jax.registry import Registry

SCHEDULES = Registry(
    "noise schedule",
    {
        "linear": "mmdisco_jax.process.schedules:linear",
        "scaled_linear": "mmdisco_jax.process.schedules:scaled_linear",
        "cosine": "mmdisco_jax.process.schedules:cosine",
    },
)
