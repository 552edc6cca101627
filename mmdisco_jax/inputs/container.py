# SPDX-License-Identifier: Apache-2.0
"""A media file, opened so that nothing but the file itself is read, and nothing huge decoded."""

import os

import av
from av.container import InputContainer

from mmdisco_jax.inputs.streams import LARGEST_PIXELS, StreamError

# Texts that name other files: what they name is an input of its own, or nobody's.
_PLAYLISTS = {"concat", "dash", "hls", "sdp"}
_OPTIONS = {
    # Opening decodes the first pictures already.
    "max_pixels": str(LARGEST_PIXELS),
    "protocol_whitelist": "file",
}


def open_media(path: str | os.PathLike[str]) -> InputContainer:
    """The file, to be closed by the caller. Raises as PyAV does, and StreamError for a playlist."""
    # Titles and comments are often not UTF-8: they are not read.
    container = av.open(os.fspath(path), options=dict(_OPTIONS), metadata_errors="replace")
    if _PLAYLISTS & set(container.format.name.split(",")):
        container.close()
        raise StreamError(f"it is a playlist ({container.format.name}), which names other files")
    return container
