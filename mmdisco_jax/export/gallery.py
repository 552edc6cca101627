# SPDX-License-Identifier: Apache-2.0
"""Gallery of generated clips: their media files and one page that plays them side by side."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mmdisco_jax.export.gallery_page import (
    GalleryClip,
    GalleryPage,
    GallerySeed,
    GalleryTable,
    write_page,
)
from mmdisco_jax.export.media import write_mp4, write_wav
from mmdisco_jax.export.names import media_stem
from mmdisco_jax.export.plots import write_film_strip, write_spectrogram
from mmdisco_jax.io import to_int16

MIN_HEIGHT = 256  # smaller pictures are written with each pixel repeated, to be seen at all

# (video uint8 [f h w 3], audio int16 [samples]) -> fields of `GalleryClip`: impact_seconds,
# onset_seconds, scores, impact_colour, onset_colour.
Marks = Callable[[np.ndarray, np.ndarray], Mapping[str, Any]]


def write_gallery(
    folder: str | os.PathLike[str],
    clips: Mapping[str, Mapping[str, ArrayLike]],
    *,
    fps: float,
    sample_rate_hz: int,
    title: str = "Generated clips",
    description: str = "Each row shows one sample of every variant.",
    prompts: Sequence[str] | None = None,
    marks: Marks | None = None,
    table: GalleryTable | None = None,
    stems: Sequence[str] | None = None,
    reuse_media: bool = False,
) -> Path:
    """Writes folder/index.html, and for each variant its clips as folder/VARIANT/STEM.*.

    A clip's files are STEM.mp4, STEM.wav, STEM.spectrogram.png and STEM.strip.png. Clips of one
    number stand side by side in the order of the variants.

    Args:
      folder: where to write; made if missing. Files of the same names are replaced.
      clips: {variant: {"video": uint8 [n f h w 3], "audio": int16 or float in [-1, 1]
        [n samples]}}, with the same n for all. A variant's name is that of its folder.
      fps: frames a second.
      sample_rate_hz: samples a second; one that AAC knows.
      title, description: heading of the page and the paragraph below it.
      prompts: the text of each number, which becomes its heading.
      marks: finds what is to be marked in one clip; None marks nothing.
      table: results to show below the clips.
      stems: file names without suffix, one a number; by default the number and its prompt.
      reuse_media: keeps the MP4 and WAV files that are there already.

    Returns:
      The path of the page.

    Raises:
      ValueError: clips of another form or of different numbers, or a variant that is no file name.
      WriteError: a file could not be written.
    """
    root, sets = Path(folder), {name: _checked(name, one) for name, one in clips.items()}
    count = _count(sets, prompts, stems)
    texts = prompts or [None] * count
    names = stems or [media_stem(i, text) for i, text in enumerate(texts)]
    seeds = []
    for i, (stem, text) in enumerate(zip(names, texts, strict=True)):
        row = []
        for variant, (video, audio) in sets.items():
            path = root / variant / stem
            if not (reuse_media and path.with_suffix(".mp4").exists()):
                write_media(path, video[i], audio[i], fps=fps, sample_rate_hz=sample_rate_hz)
            row.append(_clip(path, video[i], audio[i], fps, sample_rate_hz, marks))
        seeds.append(GallerySeed(seed=i, clips=tuple(row), prompt=text or ""))
    page = GalleryPage(
        title=title,
        description=description,
        seeds=tuple(seeds),
        tolerance_seconds=0.5 / fps,
        table=table,
    )
    return write_page(root / "index.html", page)


def write_media(
    stem: Path, video: np.ndarray, audio: np.ndarray, *, fps: float, sample_rate_hz: int
) -> None:
    """Writes one clip as `stem`.mp4 with sound, at least 256 pixels high, and as `stem`.wav.

    video uint8 `[f h w 3]`; audio int16 or float `[samples]`. Errors as `write_mp4`.
    """
    scale = max(1, MIN_HEIGHT // video.shape[1])
    # The MP4 last: a clip that has it has both.
    write_wav(stem.with_suffix(".wav"), audio, sample_rate_hz)
    path = stem.with_suffix(".mp4")
    write_mp4(path, video, audio, fps=fps, sample_rate_hz=sample_rate_hz, scale=scale)


def _clip(
    path: Path,
    video: np.ndarray,
    audio: np.ndarray,
    fps: float,
    sample_rate_hz: int,
    marks: Marks | None,
) -> GalleryClip:
    """Writes the still pictures of one clip, and returns its entry of the page."""
    write_spectrogram(path.with_suffix(".spectrogram.png"), audio, sample_rate_hz=sample_rate_hz)
    write_film_strip(path.with_suffix(".strip.png"), video)
    variant, stem = path.parent.name, path.name
    return GalleryClip(
        label=variant,
        video=f"{variant}/{stem}.mp4",
        spectrogram=f"{variant}/{stem}.spectrogram.png",
        film_strip=f"{variant}/{stem}.strip.png",
        clip_seconds=len(video) / fps,
        **(marks(video, audio) if marks else {}),
    )


def _checked(variant: str, clips: Mapping[str, ArrayLike]) -> tuple[np.ndarray, np.ndarray]:
    """Video and int16 audio of one variant."""
    if variant in ("", ".", "..") or "/" in variant or "\\" in variant:
        raise ValueError(f"variant {variant!r} must be the name of a folder, without '/'.")
    missing = {"video", "audio"} - set(clips)
    if missing:
        raise ValueError(f"the clips of {variant!r} lack {sorted(missing)}: a gallery needs both.")
    video, audio = np.asarray(clips["video"]), np.asarray(clips["audio"])
    if video.dtype != np.uint8 or video.ndim != 5 or video.shape[-1] != 3:
        raise ValueError(
            f"the video of {variant!r} is {video.dtype} {video.shape}, but must be uint8 "
            "[n f h w 3]: decode it, or convert it with io.to_uint8."
        )
    if audio.ndim != 2 or len(audio) != len(video):
        raise ValueError(
            f"the audio of {variant!r} has shape {audio.shape}, but must be "
            f"[{len(video)} samples]: one mono sound a video."
        )
    return video, audio if audio.dtype == np.int16 else to_int16(audio)


def _count(
    sets: Mapping[str, tuple[np.ndarray, np.ndarray]],
    prompts: Sequence[str] | None,
    stems: Sequence[str] | None,
) -> int:
    """Number of clips of each variant; ValueError if they differ."""
    counts = {name: len(video) for name, (video, _) in sets.items()}
    for name, texts in (("prompts", prompts), ("stems", stems)):
        if texts is not None:
            counts[name] = len(texts)
    if not sets or len(set(counts.values())) > 1 or not all(counts.values()):
        raise ValueError(
            f"a gallery needs at least one clip, and as many of each variant: got {counts}. "
            "Cut all to the same number."
        )
    return next(iter(counts.values()))
