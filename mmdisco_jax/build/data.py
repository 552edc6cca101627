# SPDX-License-Identifier: Apache-2.0
"""Config sections to prepared clips."""

import json
from pathlib import Path
from typing import Any

from mmdisco_jax.build.sections import Config
from mmdisco_jax.datasets import DATASETS
from mmdisco_jax.inputs.cache import open_cache
from mmdisco_jax.inputs.sources import open_source
from mmdisco_jax.inputs.transforms import FLIPS
from mmdisco_jax.inputs.windows import FixedWindows, WindowSize


def data_dir(config: Config) -> Path:
    return Path(config.data.dir)


def clips(config: Config, split: str, *, in_memory: bool = False) -> Any:
    """The config's prepared clips, as raw examples; ValueError if their rates are not its own."""
    where = _prepared(config) or config.data.name
    source = open_source(where, split, data_dir=data_dir(config), in_memory=in_memory)
    for name in ("fps", "sample_rate_hz"):
        prepared, wanted = source.metadata.get(name), config.clip[name]
        if prepared is not None and prepared != wanted:
            raise ValueError(
                f"the clips in {source.directory} have {name} = {prepared}, but config.clip.{name} "
                f"is {wanted}: prepare the data with that rate, or change the config."
            )
    return source


def _prepared(config: Config) -> Path | None:
    """The folder of the very dataset that the config's options describe, if it is there.

    None where the media are gone, or have changed since: then the one dataset there is will do.
    """
    builder = DATASETS.get(config.data.name)
    try:
        name = builder.config(**config.data.options.to_dict()).name
    except (FileNotFoundError, ValueError, TypeError):
        return None
    folder = data_dir(config) / config.data.name / name / str(builder.VERSION)
    return folder if folder.is_dir() else None


def latents_key(config: Config, directory: Path) -> dict[str, Any]:
    """What decides the latents of the clips that are prepared in `directory`."""
    plain = json.loads(config.to_json_best_effort())
    key = {"clips": directory.parent.name, "codecs": plain["codecs"], "clip": plain["clip"]}
    if config.texts:
        key["texts"] = plain["texts"]
    sections = [*plain["texts"].values(), *plain["codecs"].values()]
    sources = {s["weights"]: plain["weights"][s["weights"]] for s in sections if "weights" in s}
    return key | ({"sources": sources} if sources else {})


def training_examples(config: Config) -> Any:
    """What training reads: clips, or their latents if `config.data.latents` names a cache."""
    source = clips(config, "train", in_memory=config.data.in_memory and not config.data.latents)
    if not config.data.latents:
        return source
    if config.data.flip != "off":
        raise ValueError(
            f"config.data.flip is {config.data.flip!r}, but cached latents cannot be mirrored: set "
            "config.data.flip=off, or config.data.latents=''."
        )
    return open_cache(config.data.latents, latents_key(config, source.directory))


def fixed_clips(config: Config, split: str) -> Any:
    """The same, cut into the config's clip length one window after the other, to be measured."""
    source = clips(config, split)
    size = window(config, source)
    return source if size is None else FixedWindows(source, size)


def window(config: Config, source: Any) -> WindowSize | None:
    """The window that is drawn from prepared clips that are longer than the config's; else None."""
    seconds = config.clip.seconds
    if source.metadata.get("clip_seconds", seconds) == seconds:
        return None
    return WindowSize(
        num_frames=round(seconds * config.clip.fps),
        num_samples=round(seconds * config.clip.sample_rate_hz),
    )


def flip_probability(config: Config) -> float:
    """What `config.data.flip` names."""
    if config.data.flip not in FLIPS:
        raise ValueError(
            f"config.data.flip is {config.data.flip!r}: choose one of {', '.join(FLIPS)}."
        )
    return FLIPS[config.data.flip]
