# SPDX-License-Identifier: Apache-2.0
"""Frozen diffusion models: one recipe per model, and the networks they are made of.

A recipe (`api.Base`) states everything that depends on which model it is. The registry's names are
those of `config.bases.*.name`; `"package.module:attribute"` names a recipe anywhere else.
"""

from mmdisco_jax.registry import Registry

BASE_MODELS = Registry(
    "base model",
    {
        "animatediff": "mmdisco_jax.base_models.animatediff:AnimateDiff",
        "audioldm": "mmdisco_jax.base_models.audioldm:AudioLDM",
        "mm_diffusion": "mmdisco_jax.base_models.mm_diffusion:MMDiffusion",
        "patch_transformer": "mmdisco_jax.base_models.patch_transformer:PatchTransformerBase",
    },
)
