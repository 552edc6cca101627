# SPDX-License-Identifier: Apache-2.0
r"""Your own videos: two small base models and a discriminator on any folder of media with sound.

    python launch.py prepare  --config=configs/folder.py:path=/videos,preset=minutes \
        --workdir=runs/mine
    python launch.py train    --config=configs/folder.py:path=/videos,preset=minutes,train=video \
        --workdir=runs/mine/video
    python launch.py train    --config=configs/folder.py:path=/videos,preset=minutes,train=audio \
        --workdir=runs/mine/audio
    python launch.py train    --workdir=runs/mine/discriminator \
        --config=configs/folder.py:path=/videos,preset=minutes,train=discriminator
    python launch.py sample   --config=configs/folder.py:path=/videos,preset=minutes \
        --workdir=runs/mine/samples
    python launch.py evaluate --config=configs/folder.py:path=/videos,preset=minutes \
        --workdir=runs/mine/samples

Arguments, by name: path (a first argument without a name is the path), train (video, audio or
discriminator), preset (below), runs, seconds, size (pixels of a square frame), fps, rate (samples a
second), dataset (folder, landscape, aist_plus_plus, long_videos or vggsound; data/DATASET/README.md
describes them). The shapes of the models follow from them. By default clips of 1.6 s: 16 frames of
64 x 64 at 10 fps and 16 kHz, as MM-Diffusion's; training draws them from the longer records that
most datasets have.

The weights are those of the run that the workdir is in: what is sampled in runs/mine/samples takes
runs/mine/video/weights.safetensors, and so on. `runs=FOLDER` names another run.

    preset    clips      the three trainings, on two CPU cores
    minutes   32 x 32    4 minutes: narrow models, that show whether everything works
    hour      64 x 64    an hour: 1,400, 1,000 and 400 steps
    hours     64 x 64    two and a half hours, the default: 3,500, 2,500 and 1,000 steps
    night     64 x 64    eight hours: 11,000, 8,000 and 3,000 steps

Hardware: two CPU cores; a GPU for more. configs/README.md shows what `minutes` makes.
"""

import ml_collections

from mmdisco_jax import recipes

TARGETS = ("video", "audio", "discriminator")
# Size of a frame, and steps of each training, the whole of which is a schedule's length.
PRESETS = {
    "minutes": (32, {"video": 500, "audio": 450, "discriminator": 150}),
    "hour": (64, {"video": 1400, "audio": 1000, "discriminator": 400}),
    "hours": (64, {}),
    "night": (64, {"video": 11_000, "audio": 8000, "discriminator": 3000}),
}


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    given = recipes.arguments(
        argument,
        "path",
        path=".",
        train="discriminator",
        preset="hours",
        runs="",
        seconds=1.6,
        size=0,
        fps=10.0,
        rate=16_000,
        dataset="folder",
    )
    target = recipes.choice("target", given["train"], TARGETS)
    preset = recipes.choice("preset", given["preset"], tuple(PRESETS))
    size, steps = PRESETS[preset]
    clip = {k: given[k] for k in ("seconds", "fps", "rate")} | {"size": given["size"] or size}
    parts = {
        "bases": recipes.patch_transformers(size=clip["size"], num_mels=64, mel_mean=-0.3),
        "discriminator": recipes.aligned_on_bases(),
        "train": recipes.patch_training(target)
        | ({"num_steps": steps[target]} if target in steps else {}),
    }
    if preset == "minutes":
        parts = _narrow(parts, target)
    return ml_collections.ConfigDict(
        {
            "data": recipes.media_data(
                given["dataset"], given["path"], spatial="centre_crop", **clip
            ),
            "clip": recipes.clip_format(**clip),
            **parts,
            "weights": recipes.weights_of_run(TARGETS, given["runs"]),
            "sample": recipes.ddim_sampling(eta=1.0),
            "evaluate": {
                "metrics": ("av_align", "proxy_frechet_video", "proxy_frechet_audio"),
                "levels": (50, 150, 250, 350, 450, 550, 650, 750),
            },
        }
    )


def _narrow(parts: recipes.Settings, target: str) -> recipes.Settings:
    """Models and batches that learn something in minutes."""
    bases = parts["bases"]
    bases["video"] |= {"width": 128, "depth": 4}
    bases["audio"] |= {"width": 96, "depth": 3}
    batch = {"video": 16, "audio": 32, "discriminator": 32}[target]
    return {
        "bases": bases,
        "discriminator": parts["discriminator"] | {"width": 64, "fusion_depth": 1},
        "train": parts["train"] | {"batch_size": batch},
    }
