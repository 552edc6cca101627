# SPDX-License-Identifier: Apache-2.0
"""The page of what was sampled: for each seed its variants side by side, marked and scored."""

from pathlib import Path

import numpy as np

from mmdisco_jax import build
from mmdisco_jax.base_models.joint import JOINT
from mmdisco_jax.build import Config
from mmdisco_jax.commands.prompts import media_stem, prompt_of
from mmdisco_jax.export.clips import read_all
from mmdisco_jax.export.gallery import write_gallery
from mmdisco_jax.export.gallery_page import GalleryClip, GalleryPage, GallerySeed, GalleryTable
from mmdisco_jax.export.plots import write_film_strip, write_spectrogram
from mmdisco_jax.metrics import av_align
from mmdisco_jax.metrics.matching import match
from mmdisco_jax.worlds.bounce import measures as bounce
from mmdisco_jax.worlds.bounce import physics

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
_NO_CLASS = "none"


def write_page(config: Config, workdir: Path, table: GalleryTable | None = None) -> Path:
    """Writes workdir/index.html over the media that `sample` wrote; returns its path."""
    seeds: list[GallerySeed] = []
    clips = {v: read_all(workdir / v, config.sample.num_media) for v in build.variant_names(config)}
    for number in range(min(len(c["video"]) for c in clips.values())):
        made = tuple(
            _clip(config, workdir, variant, number, c["video"][number], c["audio"][number])
            for variant, c in clips.items()
        )
        seeds.append(GallerySeed(seed=number, clips=made, prompt=prompt_of(config, number)))
    page = GalleryPage(
        title="Sound and picture, out of step and in step",
        description=_description(config),
        seeds=tuple(seeds),
        tolerance_seconds=0.5 / config.clip.fps,
        table=table,
    )
    write_gallery(workdir / "index.html", page)
    return workdir / "index.html"


def _description(config: Config) -> str:
    sentences = [_NOISE, _ONE_MODEL if JOINT in config.bases else _TWO_MODELS]
    for variant in build.variant_names(config):
        if given := build.variant_settings(config, variant).condition.given:
            sentences.append(f"In {variant} the {given} was given.")
    return " ".join(sentences)


def _clip(
    config: Config,
    workdir: Path,
    variant: str,
    number: int,
    video: np.ndarray,
    audio: np.ndarray,
) -> GalleryClip:
    stem = workdir / variant / media_stem(config, number)
    write_spectrogram(
        stem.with_suffix(".spectrogram.png"), audio, sample_rate_hz=config.clip.sample_rate_hz
    )
    write_film_strip(stem.with_suffix(".strip.png"), video)
    marks = _bounce_marks(video, audio) if "bounce" in config.evaluate.metrics else None
    return GalleryClip(
        label=variant,
        video=f"{variant}/{stem.name}.mp4",
        spectrogram=f"{variant}/{stem.name}.spectrogram.png",
        film_strip=f"{variant}/{stem.name}.strip.png",
        clip_seconds=float(config.clip.seconds),
        **(marks or _peak_marks(config, video, audio)),
    )


def _bounce_marks(video: np.ndarray, audio: np.ndarray) -> dict:
    """What the calibrated detectors saw and heard."""
    seen = bounce.detect(video, audio)
    hits = len(match(seen.impacts, seen.onsets, bounce.TOLERANCES["half_frame"]))
    total = len(seen.impacts) + len(seen.onsets)
    names = (*physics.COLOUR_NAMES, _NO_CLASS)
    marks = {
        "impact_seconds": tuple(seen.impacts.tolist()),
        "onset_seconds": tuple(seen.onsets.tolist()),
        "scores": {
            "timing F1": 2 * hits / total if total else 0.0,
            "colour seen": names[seen.colour],
            "colour heard": names[seen.pitch],
        },
    }
    if seen.colour >= 0:
        marks["impact_colour"] = _hex(seen.colour)
    if seen.pitch >= 0:
        marks["onset_colour"] = _hex(seen.pitch)
    return marks


def _peak_marks(config: Config, video: np.ndarray, audio: np.ndarray) -> dict:
    """Peaks of optical flow and onsets of sound, as AV-Align takes them."""
    flow = av_align.flow_trajectory(video)
    end = float(config.clip.seconds)
    motions = av_align.video_peaks(flow, config.clip.fps)
    sounds = av_align.audio_peaks(audio, config.clip.sample_rate_hz)
    return {
        "impact_seconds": tuple(float(min(s, end)) for s in motions),
        "onset_seconds": tuple(float(min(s, end)) for s in sounds),
    }


def _hex(colour: int) -> str:
    return "#" + "".join(f"{int(c):02x}" for c in physics.COLOURS[colour])
