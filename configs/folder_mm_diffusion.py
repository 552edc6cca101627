# SPDX-License-Identifier: Apache-2.0
r"""A small MM-Diffusion on any folder of media with sound, on pixels and waveform.

    python launch.py prepare --config=configs/folder_mm_diffusion.py:/path/to/videos \
        --workdir=runs/mine
    python launch.py train   --config=configs/folder_mm_diffusion.py:/path/to/videos \
        --workdir=runs/mine/joint
    python launch.py sample  --config=configs/folder_mm_diffusion.py:/path/to/videos \
        --workdir=runs/mine/samples

The argument is FOLDER[,TARGET[,DATASET]] as in configs/landscape_mm_diffusion.py, with DATASET
"folder" by default; the network is that of configs/bounce_mm_diffusion.py. A start to grow from, no
result.
"""

from typing import Any

import ml_collections

from configs import bounce_mm_diffusion, folder, landscape_mm_diffusion


def get_config(argument: str = ".") -> ml_collections.ConfigDict:
    path, target, dataset = (*argument.split(","), "", "")[:3]
    target = target or "joint"
    config: Any = landscape_mm_diffusion.get_config(f"{path},{target},{dataset or 'folder'}")
    patch, fold = bounce_mm_diffusion.PATCH, bounce_mm_diffusion.FOLD
    side, samples = folder.SIZE // patch, round(folder.SECONDS * folder.RATE_HZ)
    with config.unlocked():
        config.codecs = {
            "video": {"name": "pixels", "patch": patch},
            "audio": {"name": "waveform", "scale": 0.2, "fold": fold},
        }
        config.bases.joint = bounce_mm_diffusion.base() | {
            "sample_shapes": {
                "audio": (samples // fold, fold),
                "video": (folder.FRAMES, side, side, 3 * patch**2),
            }
        }
        config.weights.joint = "runs/mine/joint/weights.safetensors"
        config.weights.discriminator = "runs/mine/discriminator/weights.safetensors"
        config.discriminator = bounce_mm_diffusion.discriminator()
        if target == "joint":
            config.train.update(bounce_mm_diffusion.joint_training())
        else:
            config.train.update(bounce_mm_diffusion.discriminator_training())
        landscape_mm_diffusion.set_sampling(config, bounce_mm_diffusion.sampling())
        config.sample.variants = {"joint": {}}
        config.bench.update({"batch_size": 8, "parts": ("training", "sampling", "estimate")})
    return config
