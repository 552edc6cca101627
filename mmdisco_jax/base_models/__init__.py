# SPDX-License-Identifier: Apache-2.0
"""Base models: noise predictors that stay frozen while the discriminator is trained."""

from mmdisco_jax.registry import Registry

BASE_MODELS = Registry(
    "base model",
    {
        "mm_diffusion": "mmdisco_jax.base_models.mm_diffusion:build",
        "patch_transformer": "mmdisco_jax.base_models.patch_transformer:build",
    },
)
