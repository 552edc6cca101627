# SPDX-License-Identifier: Apache-2.0
"""Records to batches: sources, transforms and the grain pipeline. `DATASETS` names the builders."""

from mmdisco_jax.registry import Registry

DATASETS = Registry(
    "dataset",
    {
        "aist_plus_plus": "data.aist_plus_plus.aist_plus_plus_dataset_builder:Builder",
        "bounce": "data.bounce.bounce_dataset_builder:Builder",
        "folder": "data.folder.folder_dataset_builder:Builder",
        "landscape": "data.landscape.landscape_dataset_builder:Builder",
        "long_videos": "data.long_videos.long_videos_dataset_builder:Builder",
        "vggsound": "data.vggsound.vggsound_dataset_builder:Builder",
    },
)
