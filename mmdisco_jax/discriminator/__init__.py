# SPDX-License-Identifier: Apache-2.0
"""The joint discriminator: real pairs against independent ones. It knows no sampler."""

from mmdisco_jax.registry import Registry

DISCRIMINATORS = Registry(
    "discriminator",
    {
        "aligned": "mmdisco_jax.discriminator.aligned:build",
        "official": "mmdisco_jax.discriminator.official_pair:build",
    },
)
