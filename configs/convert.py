# SPDX-License-Identifier: Apache-2.0
"""Official weight files to this project's (.pt to .safetensors), and back.

    python launch.py convert --config=configs/convert.py:mm_diffusion_sr64to256 \
        --workdir=runs/weights --config.convert.source=AIST++_SR.pt \
        --config.convert.target=aist_sr.safetensors

The suffixes decide the direction. A relative source is looked for in the current folder; a relative
target lies in --workdir, and must not exist. Every name and shape must be the architecture's, to
the last tensor; EMA files have the same names, and "module." before all of them is removed. PyTorch
is needed (pip install torch) and never runs code from the file: an entry that is no plain tensor is
refused.

Architectures: mm_diffusion_base64 (AIST++, Landscape), mm_diffusion_sr64to256 (AIST++_SR,
Landscape_SR), mmdisco_mmdiffusion, mmdisco_audioldm_animatediff, mmdisco_auffusion_videocrafter2
(MMDisCo's discriminators); and diffusers: a whole pipeline's folder, or its Hugging Face id, to one
with this project's weights, and back (AudioLDM, AnimateDiff, Stable Diffusion; no PyTorch needed
for safetensors). `sample` takes either.

Hardware and time: half a minute and 3 GB of memory for the largest file (1.2 GB), on two CPU cores.
"""

import ml_collections


def get_config(architecture: str = "") -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict({"convert": {"architecture": architecture}})
