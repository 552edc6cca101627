# SPDX-License-Identifier: Apache-2.0
r"""MM-Diffusion at the paper's size on AIST++: dance and its music.

    python launch.py prepare --config=configs/aist_mm_diffusion.py:/path/to/aist --workdir=runs/aist
    python launch.py train   --config=configs/aist_mm_diffusion.py:/path/to/aist \
        --workdir=runs/aist/joint

Arguments, size and recipe as configs/landscape_mm_diffusion.py.
"""

import ml_collections

from configs import landscape_mm_diffusion


def get_config(argument: str = ".") -> ml_collections.ConfigDict:
    path, target, *_ = (*argument.split(","), "")
    return landscape_mm_diffusion.get_config(f"{path},{target},aist_plus_plus")
