# SPDX-License-Identifier: Apache-2.0
"""A media file, opened so that nothing but the file itself is read, and nothing huge decoded."""

import os

import av
from av.container import InputContainer

from mmdisco_jax.media.streams import LARGEST_PIXELS, StreamError

# Texts that name other files: what they name is an input of its own, or nobody's.
_PLAYLISTS = {"concat", "dash", "hls", "sdp"}
# Pictures without sound or times: FFmpeg's guess at a file whose header is damaged.
_BARE = {"av1", "cavsvideo", "dirac", "evc", "h261", "h263", "h264", "hevc", "m4v", "mpegvideo",
         "obu", "vc1", "vvc"}  # fmt: skip
_OPTIONS = {
    # Opening decodes the first pictures already.
    "max_pixels": str(LARGEST_PIXELS),
    "protocol_whitelist": "file",
}


def open_media(path: str | os.PathLike[str]) -> InputContainer:
    """The file, to be closed by the caller.

    Raises as PyAV does, and StreamError for a playlist, or a guess that the file's name denies.
    """
    # Titles and comments are often not UTF-8: they are not read.
    container = av.open(os.fspath(path), options=dict(_OPTIONS), metadata_errors="replace")
    names = set(container.format.name.split(","))
    suffix = os.path.splitext(os.fspath(path))[1][1:].lower()
    if _PLAYLISTS & names:
        container.close()
        raise StreamError(f"it is a playlist ({container.format.name}), which names other files")
    if _BARE & names and suffix not in container.format.extensions:
        container.close()
        raise StreamError(
            f"it has no header that is known; its bytes look like {container.format.name}, which "
            f"no .{suffix} is"
        )
    return container
