# SPDX-License-Identifier: Apache-2.0
"""One page on which samples are seen and heard side by side: plain HTML, opened from disk.

The page refers to its media by relative paths and to nothing else, so its folder can be moved,
zipped or served as it is.
"""

import os
from pathlib import Path

from mmdisco_jax.export.gallery_html import page_html
from mmdisco_jax.export.gallery_page import GalleryClip, GalleryPage, GallerySeed, GalleryTable
from mmdisco_jax.io import write_bytes

__all__ = ["GalleryClip", "GalleryPage", "GallerySeed", "GalleryTable", "write_gallery"]


def write_gallery(path: str | os.PathLike[str], page: GalleryPage) -> None:
    """Writes the page to `path`, beside which its media must already lie.

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
