# SPDX-License-Identifier: Apache-2.0
"""Shipped configs by name and arguments, and each of them shrunk to seconds of a CPU's work."""

import csv
import importlib.util
from pathlib import Path
from typing import Any

from mmdisco_jax.recipes import MEDIA_DATASETS
from mmdisco_jax.resources import config_dir
from mmdisco_jax.tasks.convert import ARCHITECTURES, FOLDER

# Constants of a config file that name the choices of one of its arguments.
_CHOICES = {"TARGETS": "train", "FACTORS": "factor", "SAMPLERS": "sampler"}
_SIDE, _LOW, _SECONDS = 16, 4, 0.4


def module_of(name: str) -> Any:
    """The module of a shipped config."""
    path = config_dir() / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"shipped_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arguments_of(name: str) -> list[str]:
    """Every choice of a config's arguments, one at a time: "train=video", "dataset=landscape"."""
    if name == "convert":
        return [*ARCHITECTURES, FOLDER]
    module, source = module_of(name), (config_dir() / f"{name}.py").read_text()
    found = [
        f"{argument}={choice}"
        for constant, argument in _CHOICES.items()
        for choice in getattr(module, constant, ())
    ]
    if "dataset=" in source:
        found += [f"dataset={dataset}" for dataset in MEDIA_DATASETS]
    return found or [""]


def shrink(config: Any) -> None:
    """Makes networks, trainings and samplings of a completed config as small as they can be."""
    with config.unlocked():
        if config.data.name != "bounce":
            _shrink_clips(config)
        for base in config.bases.values():
            _shrink_base(base)
        if config.discriminator:
            _shrink_discriminator(config.discriminator)
        if config.super_resolution:
            _shrink_super_resolution(config.super_resolution)
        _shrink_work(config)


def _shrink_clips(config: Any) -> None:
    """Clips of 4 frames of 16 x 16, which training draws from records twice as long."""
    config.clip.update(seconds=_SECONDS, height=_SIDE, width=_SIDE)
    config.data.options.update(clip_seconds=2 * _SECONDS, height=_SIDE, width=_SIDE)
    if config.super_resolution:
        config.super_resolution.update(low_size=_LOW, high_size=_SIDE)


def _shrink_base(base: Any) -> None:
    if base.name == "patch_transformer":
        base.update(width=32, depth=1, num_heads=2, patch_width=min(base.patch_width, 8))
    if base.name == "mm_diffusion":
        # One level without cross-attention: each block takes seconds to compile.
        base.network.update(
            model_channels=8,
            channel_mult=(1,),
            num_res_blocks=1,
            num_groups=4,
            video_attention_resolutions=(),
            cross_attention_resolutions=(),
            cross_attention_windows=(),
            middle_cross_attention=False,
            compute_dtype="float32",
        )
        if "patch" in base.codec.video:
            base.codec.video.patch = 8
        if "fold" in base.codec.audio:
            base.codec.audio.fold = 160


def _shrink_discriminator(section: Any) -> None:
    if section.name == "official":
        section.update(
            model_channels=8, channel_mult=(1,), num_res_blocks=1, emb_dim=8, num_groups=4
        )
        if "num_layers" in section.fusion:
            section.fusion.update(num_layers=1, channels=8, out_channels=8, num_heads=1, head_dim=8)
            # Without downsampling levels the shrunken network has more tokens.
            with section.fusion.unlocked():
                section.fusion.max_tokens = 512
    else:
        section.update(width=32, num_heads=2, fusion_depth=1)


def _shrink_super_resolution(section: Any) -> None:
    section.base.update(
        model_channels=4, channel_mult=(1,), num_res_blocks=1, num_groups=2, attention_factors=()
    )
    section.update(respacing="ddim2", frames_per_batch=8)


def _shrink_work(config: Any) -> None:
    config.train.update(
        num_steps=2, warmup_steps=1, batch_size=2, num_microbatches=1, log_every=1, save_every=2
    )
    config.train.objective.update(groups=1, shifts=1, denoising_samples=1)
    if config.train.objective.denoising_weight:
        config.train.objective.denoising_from = 1
    steps = 3  # as many as the third order needs
    config.sample.update(num_samples=2, batch_size=2, num_steps=steps, num_media=1)
    for variant in config.sample.variants.values():
        for key in ("num_steps", "num_samples", "batch_size"):
            if key in variant:
                variant[key] = config.sample[key]
    config.fakes.update(num_samples=0, batch_size=2)
    config.mesh.update(data=1)
    if config.toy:
        config.toy.update(
            worlds=("pairs",), num_samples=20, num_reference=20, num_replicates=5, num_steps=steps
        )


def write_captions(media: Path, table: Path) -> None:
    """A table of the files in a folder, with a caption each."""
    with table.open("w", newline="") as file:
        rows = [(path.name, f"sound number {path.stem}") for path in sorted(media.iterdir())]
        csv.writer(file).writerows([("file", "caption"), *rows])
