# SPDX-License-Identifier: Apache-2.0
"""Registry of the TFDS dataset builders in `data/`."""

import importlib.util
from pathlib import Path

from mmdisco_jax.registry import Registry


def _package_of_datasets() -> str:
    """The name under which `data/` is imported: `data` in a checkout, else inside the package.

    A checkout has `data/` beside the package and on the path; a wheel carries it inside, and an
    editable installation says so. Another package called `data` is not taken for it.
    """
    spec = importlib.util.find_spec("data")
    beside = Path(__file__).resolve().parents[1] / "data"
    if spec is not None and spec.origin and Path(spec.origin).resolve().parent == beside:
        return "data"
    return "mmdisco_jax.data"


_ROOT = _package_of_datasets()

DATASETS = Registry(
    "dataset",
    {
        name: f"{_ROOT}.{name}.{name}_dataset_builder:Builder"
        for name in ("aist_plus_plus", "bounce", "folder", "landscape", "long_videos", "vggsound")
    },
)
