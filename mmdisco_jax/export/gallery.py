# SPDX-License-Identifier: Apache-2.0
"""HTML gallery on which variants of clips are seen and heard side by side, opened from disk.

The page refers to its media by relative paths and to nothing else, so its folder can be moved,
zipped or served as it is.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmdisco_jax.export.gallery_html import page_html
from mmdisco_jax.export.gallery_page import GalleryClip, GalleryPage, GallerySeed, GalleryTable
from mmdisco_jax.export.media import write_mp4, write_wav
from mmdisco_jax.export.names import media_stem
from mmdisco_jax.export.plots import write_film_strip, write_spectrogram
from mmdisco_jax.io import write_bytes

__all__ = [
    "GalleryClip",
    "GalleryPage",
    "GallerySeed",
    "GalleryTable",
    "Marks",
    "write_gallery",
    "write_page",
]
# (video uint8 [f h w 3], audio int16 or float [samples]) -> fields of a `GalleryClip`
Marks = Callable[[np.ndarray, np.ndarray], Mapping[str, Any]]
_SHOWN_PIXELS = 256  # height to which small pictures are enlarged


def write_gallery(
    folder: str | os.PathLike[str],
    clips: Mapping[str, Mapping[str, Any]],
    *,
    fps: float,
    sample_rate_hz: int,
    title: str = "Generated clips",
    description: str = "Each row shows one sample of every variant.",
    prompts: Sequence[str] | None = None,
    marks: Marks | None = None,
    table: GalleryTable | None = None,
    reuse_media: bool = False,
) -> Path:
    """Writes clips of one or several variants as media files, and a page that shows them.

    Args:
      folder: receives index.html, and VARIANT/NUMBER.mp4, .wav, .spectrogram.png and .strip.png.
      clips: {variant: {"video": uint8 [n f h w 3], "audio": int16, or float in [-1, 1],
        [n samples]}}; row i of the page shows clip i of every variant.
      fps: frames a second.
      sample_rate_hz: samples a second; one that AAC knows.
      title, description: of the page.
      prompts: of the rows, which are then named by them.
      marks: times, scores and colours of a clip, drawn over its spectrogram.
      table: results, shown above the clips.
      reuse_media: whether an mp4 that is there already is kept.

    Returns:
      The path of the page.

    Raises:
      ValueError: clips that are not as above.
      WriteError: a file could not be written.
    """
    folder, seeds = Path(folder), []
    numbers = {name: len(one["video"]) for name, one in clips.items()}
    if not numbers:
        raise ValueError("there are no clips to show: give {variant: {'video': ..., 'audio': ...}}")
    for number in range(min(numbers.values())):
        prompt = prompts[number] if prompts else ""
        stem = media_stem(number, prompt)
        row = []
        for variant, one in clips.items():
            video, audio = np.asarray(one["video"][number]), np.asarray(one["audio"][number])
            path = folder / variant / stem
            _write_media(path, video, audio, fps, sample_rate_hz, reuse_media)
            found = marks(video, audio) if marks else {}
            row.append(_clip(variant, stem, len(video) / fps, found))
        seeds.append(GallerySeed(seed=number, clips=tuple(row), prompt=prompt))
    page = GalleryPage(
        title=title,
        description=description,
        seeds=tuple(seeds),
        tolerance_seconds=0.5 / fps,
        table=table,
    )
    return write_page(folder / "index.html", page)


def _write_media(
    path: Path, video: np.ndarray, audio: np.ndarray, fps: float, rate: int, reuse: bool
) -> None:
    if not (reuse and path.with_suffix(".mp4").exists()):
        scale = max(1, _SHOWN_PIXELS // video.shape[1])
        mp4 = path.with_suffix(".mp4")
        write_mp4(mp4, video, audio, fps=fps, sample_rate_hz=rate, scale=scale)
        write_wav(path.with_suffix(".wav"), audio, rate)
    write_spectrogram(path.with_suffix(".spectrogram.png"), audio, sample_rate_hz=rate)
    write_film_strip(path.with_suffix(".strip.png"), video)


def _clip(variant: str, stem: str, seconds: float, marks: Mapping[str, Any]) -> GalleryClip:
    return GalleryClip(
        label=variant,
        video=f"{variant}/{stem}.mp4",
        spectrogram=f"{variant}/{stem}.spectrogram.png",
        film_strip=f"{variant}/{stem}.strip.png",
        clip_seconds=seconds,
        **marks,
    )


def write_page(path: str | os.PathLike[str], page: GalleryPage) -> Path:
    """Writes a page to `path`, beside which its media must already lie; returns the path.

    Raises:
      FileNotFoundError: a file the page refers to is missing.
      WriteError: the page could not be written; nothing is left behind.
    """
    folder = Path(path).parent
    for clip in (clip for seed in page.seeds for clip in seed.clips):
        for name in clip.files():
            if not (folder / name).is_file():
                raise FileNotFoundError(
                    f"the gallery refers to {name!r}, but {folder / name} does not exist; "
                    "write the media first, and the page last."
                )
    write_bytes(path, page_html(page).encode())
    return Path(path)
