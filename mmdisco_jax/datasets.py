# SPDX-License-Identifier: Apache-2.0
"""Registry of the TFDS dataset builders in `data/`."""

from pathlib import Path

from mmdisco_jax.registry import Registry

# A checkout has `data/` beside the package; a wheel carries it inside.
_ROOT = "mmdisco_jax.data" if (Path(__file__).parent / "data").is_dir() else "data"

DATASETS = Registry(
    "dataset",
    {
        name: f"{_ROOT}.{name}.{name}_dataset_builder:Builder"
        for name in ("aist_plus_plus", "bounce", "folder", "landscape", "long_videos", "vggsound")
    },
)
