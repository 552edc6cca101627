# SPDX-License-Identifier: Apache-2.0
"""Gallery of sampled clips: for each seed its variants side by side, marked and scored."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdisco_jax.export import gallery
from mmdisco_jax.export.clips import read_all
from mmdisco_jax.export.gallery import Marks
from mmdisco_jax.export.gallery_page import GalleryTable
from mmdisco_jax.metrics.av_align import peak_marks
from mmdisco_jax.system import System
from mmdisco_jax.tasks.prompts import prompt_of

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


def write_gallery(
    folder: str | os.PathLike[str],
    clips: Mapping[str, Mapping[str, Any]],
    *,
    fps: float,
    sample_rate_hz: int,
    prompts: Sequence[str] | None = None,
    marks: Marks | None = None,
    **options: Any,
) -> Path:
    """Gallery of clips with sound: media files, and an HTML page that shows them side by side.

    Args:
      folder: receives index.html and the media.
      clips: {variant: {"video": uint8 [n f h w 3], "audio": int16, or float in [-1, 1],
        [n samples]}}.
      fps: frames a second.
      sample_rate_hz: samples a second.
      prompts: of the rows.
      marks: (video, audio) -> marks to draw; by default peaks of motion and onsets of sound.
      options: further arguments of `export.gallery.write_gallery`: title, description, table.

    Returns:
      The path of the page, to be opened in a browser.

    Raises:
      ValueError: clips that are not as above.
      WriteError: a file could not be written.
    """
    return gallery.write_gallery(
        folder,
        clips,
        fps=fps,
        sample_rate_hz=sample_rate_hz,
        prompts=prompts,
        marks=marks or peak_marks(fps, sample_rate_hz),
        **options,
    )


def write_page(system: System, workdir: Path, table: GalleryTable | None = None) -> Path:
    """Writes workdir/index.html over the media that `sample` wrote; returns its path."""
    experiment = system.experiment
    shown, clip = experiment.sample.num_media, experiment.clip
    clips = {name: read_all(workdir / name, shown) for name in experiment.variant_names}
    count = min(len(one["video"]) for one in clips.values())
    texts = [prompt_of(experiment.sample, number) for number in range(count)]
    prompts = [text for text in texts if text is not None]
    return write_gallery(
        workdir,
        {name: {m: x[:count] for m, x in one.items()} for name, one in clips.items()},
        fps=clip.fps,
        sample_rate_hz=clip.sample_rate_hz,
        prompts=prompts or None,
        marks=_marks(system),
        title="Sound and picture, out of step and in step",
        description=_description(system),
        table=table,
        reuse_media=True,
    )


def _marks(system: System) -> Marks | None:
    """Marks of the bounce detectors where the experiment measures by them."""
    if "bounce" not in system.experiment.evaluate.metrics:
        return None
    from mmdisco_jax.worlds.bounce.marks import bounce_marks

    return bounce_marks


def _description(system: System) -> str:
    experiment = system.experiment
    sentences = [_NOISE, _ONE_MODEL if experiment.is_joint else _TWO_MODELS]
    for variant in experiment.variant_names:
        if given := experiment.variant(variant).condition.given:
            sentences.append(f"In {variant} the {given} was given.")
    return " ".join(sentences)
