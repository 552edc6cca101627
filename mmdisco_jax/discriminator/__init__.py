# SPDX-License-Identifier: Apache-2.0
"""The joint discriminator: real pairs against independent ones. It knows no sampler."""

from mmdisco_jax.registry import Registry

DISCRIMINATORS = Registry(
    "discriminator",
    {
        "aligned": "mmdisco_jax.discriminator.aligned:build",
        "aligned_on_bases": "mmdisco_jax.discriminator.aligned:build_on_bases",
        "official": "mmdisco_jax.discriminator.official_pair:build",
    },
)
