# SPDX-License-Identifier: Apache-2.0
"""Records to batches: sources, transforms and the grain pipeline. `DATASETS` names the builders."""

from mmdisco_jax.registry import Registry

DATASETS = Registry(
    "dataset",
    {
        "bounce": "data.bounce.bounce_dataset_builder:Builder",
        "folder": "data.folder.folder_dataset_builder:Builder",
    },
)
