# SPDX-License-Identifier: Apache-2.0
"""Gallery of a workdir: for each seed its variants side by side, marked and scored."""

from pathlib import Path

from mmdisco_jax import build
from mmdisco_jax.base_models.joint import JOINT
from mmdisco_jax.build import Config
from mmdisco_jax.commands.prompts import prompt_of
from mmdisco_jax.export.clips import read_all
from mmdisco_jax.export.gallery import write_gallery
from mmdisco_jax.export.gallery_page import GalleryTable
from mmdisco_jax.metrics.av_align import peak_marks
from mmdisco_jax.worlds.bounce.marks import bounce_marks

_NOISE = "Each clip of a row starts from the same noise."
_TWO_MODELS = (
    "Independent: a video model and an audio model that never heard of each other. Guided: the "
    "same two models, with the gradient of a small discriminator added to their noise estimates, "
    "so that sound and picture agree."
)
_ONE_MODEL = (
    "One model makes sound and picture together; where a variant is guided, the gradient of a "
    "small discriminator is added to its noise estimates."
)


def write_page(config: Config, workdir: Path, table: GalleryTable | None = None) -> Path:
    """Writes workdir/index.html over the media that `sample` wrote; returns its path."""
    clips = {v: read_all(workdir / v, config.sample.num_media) for v in build.variant_names(config)}
    count = min(len(one["video"]) for one in clips.values())
    fps, rate = config.clip.fps, config.clip.sample_rate_hz
    prompts = [prompt_of(config, number) for number in range(count)]
    return write_gallery(
        workdir,
        {v: {m: one[m][:count] for m in ("video", "audio")} for v, one in clips.items()},
        fps=fps,
        sample_rate_hz=rate,
        title="Sound and picture, out of step and in step",
        description=_description(config),
        prompts=prompts if any(prompts) else None,
        marks=bounce_marks if "bounce" in config.evaluate.metrics else peak_marks(fps, rate),
        table=table,
        reuse_media=True,
    )


def _description(config: Config) -> str:
    sentences = [_NOISE, _ONE_MODEL if JOINT in config.bases else _TWO_MODELS]
    for variant in build.variant_names(config):
        if given := build.variant_settings(config, variant).condition.given:
            sentences.append(f"In {variant} the {given} was given.")
    return " ".join(sentences)
