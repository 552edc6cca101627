# SPDX-License-Identifier: Apache-2.0
"""Choice of the picture track and the sound track of a file that has several of them.

Like players, it takes what decodes and what the file marks as its default, not what comes first.
Stills such as album covers are no film, and tracks of comments or for the impaired come last.
"""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition

from mmdisco_jax.media.container import open_media
from mmdisco_jax.media.streams import Pictures, Sound, StreamError

_STILLS = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails
_FOR_SOME = (
    Disposition.comment
    | Disposition.visual_impaired
    | Disposition.hearing_impaired
    | Disposition.karaoke
    | Disposition.clean_effects
)
_KINDS = {"video": "picture", "audio": "sound"}
NOT_THE_FIRST = "not the first"
_ANY_FPS, _ANY_RATE_HZ = 25, 16_000


@dataclasses.dataclass(frozen=True)
class Track:
    """A chosen track: its index in the file, or None if there is none of its kind.

    `reason` says what it was chosen from, or "" where there was no choice.
    """

    index: int | None
    reason: str = ""

    def of(self, container: InputContainer) -> Any:
        """The track in an open container of the file, or None."""
        return None if self.index is None else container.streams[self.index]


def choose_pictures(container: InputContainer, path: str | os.PathLike[str]) -> Track:
    """Chooses the film of an open file; `path` is read again if several tracks could be it.

    Raises:
      StreamError: no decoder knows any of the tracks.
    """
    films = [stream for stream in container.streams.video if not stream.disposition & _STILLS]
    return _choose("video", films, lambda stream: _is_film(path, stream.index))


def choose_sound(container: InputContainer, path: str | os.PathLike[str]) -> Track:
    """Chooses the sound of an open file, as `choose_pictures` its film."""
    return _choose("audio", container.streams.audio, lambda stream: _sounds(path, stream.index))


def _choose(kind: str, streams: Any, works: Callable[[Any], bool]) -> Track:
    if not streams:
        return Track(None)
    known = [stream for stream in streams if stream.codec_context is not None]
    if not known:
        what = "pictures" if kind == "video" else "sound"
        raise StreamError(f"no decoder knows its {what}")
    if len(streams) == 1:
        return Track(streams[0].index)
    ranked = sorted(known, key=_rank)
    chosen = next(filter(works, ranked), ranked[0])
    names = "; ".join(map(_name, streams))
    order = "the first" if chosen.index == streams[0].index else NOT_THE_FIRST
    return Track(
        chosen.index,
        f"of its {len(streams)} {_KINDS[kind]} tracks ({names}) track {chosen.index} is used, "
        f"{order}",
    )


def _rank(stream: Any) -> tuple[bool, bool, int]:
    """Sorts before others what the file marks as its default, then what is for everybody."""
    marks = stream.disposition
    return not marks & Disposition.default, bool(marks & _FOR_SOME), stream.index


def _name(stream: Any) -> str:
    """Such as "2: aac, default, eng"; tracks count from 0, as in ffprobe."""
    context = stream.codec_context
    words = ["unknown codec" if context is None else context.name]
    words += [mark.name for mark in Disposition if stream.disposition & mark and mark.name]
    language = stream.metadata.get("language", "")
    return f"{stream.index}: {', '.join([*words, *([language] if language else [])])}"


def _is_film(path: str | os.PathLike[str], index: int) -> bool:
    """Whether two pictures of the track can be decoded."""
    try:
        with open_media(path) as container:
            stream: Any = container.streams[index]
            stream.codec_context.thread_count = 1
            return not Pictures(container, stream, fps=_ANY_FPS).still
    except (StreamError, FFmpegError, OSError, ValueError):
        return False


def _sounds(path: str | os.PathLike[str], index: int) -> bool:
    """Whether the beginning of the track can be decoded."""
    try:
        with open_media(path) as container:
            stream: Any = container.streams[index]
            Sound(container, stream, sample_rate_hz=_ANY_RATE_HZ)
            return True
    except (StreamError, FFmpegError, OSError, ValueError):
        return False
