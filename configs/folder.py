# SPDX-License-Identifier: Apache-2.0
r"""Your own videos: the bounce recipe on any folder of media with sound.

    python launch.py prepare --config=configs/folder.py:/path/to/videos --workdir=runs/mine
    python launch.py train   --config=configs/folder.py:/path/to/videos,video \
        --workdir=runs/mine/video

The argument is FOLDER[,TARGET[,DATASET]], with TARGET as in configs/bounce.py and DATASET one of
`DATASETS` (data/DATASET/README.md). Clips of 1.6 s: 16 frames of 64 x 64 at 10 fps and 16 kHz, as
MM-Diffusion's; training draws them from the longer records that most datasets have. Small models:
a start to grow from, no result.
"""

from typing import Any

import ml_collections

from configs import bounce

SIZE, FRAMES, FPS, SECONDS, RATE_HZ = 64, 16, 10, 1.6, 16_000
MEL_FRAMES, MELS, HOP = 64, 64, 400
# Options of each, beside those that all share.
DATASETS = {
    "folder": {"clip_seconds": SECONDS, "files": "", "table": "", "test_fraction": 0.1},
    "landscape": {"clip_seconds": 10.0},
    "aist_plus_plus": {"clip_seconds": 6.4},
    "long_videos": {"clip_seconds": 34.0, "skip_seconds": 10.0},
    "vggsound": {"clip_seconds": 10.0, "table": "vggsound.csv"},
}


def get_config(argument: str = ".") -> ml_collections.ConfigDict:
    folder, target, dataset = (*argument.split(","), "", "")[:3]
    config: Any = bounce.get_config(target or "discriminator")
    dataset = dataset or "folder"
    if dataset not in DATASETS:
        raise ValueError(f"unknown dataset {dataset!r}: choose one of {', '.join(DATASETS)}.")
    with config.unlocked():
        config.data.name = dataset
        config.data.options = {
            **DATASETS[dataset],
            "folder": folder,
            "fps": FPS,
            "height": SIZE,
            "width": SIZE,
            "sample_rate_hz": RATE_HZ,
            # What to do with a file that has a problem: "error", "skip" (it is listed in
            # quarantine.json), or a remedy; data/folder/README.md lists them.
            "on_missing_file": "skip",
            "on_corrupt": "skip",
            "on_missing_video": "skip",
            "on_missing_audio": "skip",
            "on_short": "skip",
            "on_duplicate": "skip",
            "on_silent": "keep",
            "on_odd_rate": "keep",
            "spatial": "centre_crop",  # or "pad" with black (as MM-Diffusion), or "resize"
            "seed": 0,
        }
    config.data.in_memory = False
    config.clip = {"seconds": SECONDS, "fps": FPS, "sample_rate_hz": RATE_HZ}
    config.codecs.audio.num_frames = MEL_FRAMES
    config.codecs.audio.num_mels = MELS
    config.codecs.audio.hop_length = HOP
    config.codecs.audio.mean = -0.3
    video, audio = (FRAMES, SIZE, SIZE, 3), (MEL_FRAMES, MELS, 1)
    config.bases.video.sample_shape = video
    config.bases.audio.sample_shape = audio
    config.bases.audio.patch = (4, MELS)
    for name in ("video", "audio", "discriminator"):
        config.weights[name] = f"runs/mine/{name}/weights.safetensors"
    config.evaluate.metrics = ("av_align", "proxy_frechet_video", "proxy_frechet_audio")
    return config
