# SPDX-License-Identifier: Apache-2.0
"""Safe opening of media files, and facts about an open container.

Opening reads nothing but the file itself and refuses pictures of absurd size.
"""

import os
from typing import Any

import av
from av.container import InputContainer
from av.stream import Disposition

from mmdisco_jax.media.streams import LARGEST_PIXELS, StreamError

# Playlists name other files. Those are inputs of their own, or should not be read at all.
_PLAYLISTS = {"concat", "dash", "hls", "sdp"}
# Bare picture streams, without sound or times. FFmpeg guesses these for a damaged header.
_ELEMENTARY_STREAMS = {
    "av1", "cavsvideo", "dirac", "evc", "h261", "h263", "h264", "hevc", "m4v", "mpegvideo", "obu",
    "vc1", "vvc",
}  # fmt: skip
_OPTIONS = {
    # Set here because opening already decodes the first pictures.
    "max_pixels": str(LARGEST_PIXELS),
    "protocol_whitelist": "file",
}
# Titles and comments are often not UTF-8, which is no error; from version 19 on, PyAV sees to it.
_ANY_TEXT: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
)


def open_media(path: str | os.PathLike[str]) -> InputContainer:
    """Opens a media file for decoding; the caller closes it.

    Raises:
      StreamError: the file is a playlist, or FFmpeg guesses a bare picture stream although the
        file's suffix says otherwise.
      FFmpegError, OSError: PyAV cannot open it.
    """
    container = av.open(os.fspath(path), options=dict(_OPTIONS), **_ANY_TEXT)
    names = set(container.format.name.split(","))
    suffix = os.path.splitext(os.fspath(path))[1][1:].lower()
    if _PLAYLISTS & names:
        container.close()
        raise StreamError(f"it is a playlist ({container.format.name}), which names other files")
    if _ELEMENTARY_STREAMS & names and suffix not in container.format.extensions:
        container.close()
        raise StreamError(
            f"it has no header that is known; its bytes look like {container.format.name}, which "
            f"no .{suffix} is"
        )
    return container


def picture_stream(container: InputContainer) -> av.VideoStream | None:
    """Returns the first stream of moving pictures, or None; an album cover does not count."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    return None


def begin_seconds(container: InputContainer) -> float:
    """Returns the time on the file's clock at which players show 0."""
    return (container.start_time or 0) / av.time_base
