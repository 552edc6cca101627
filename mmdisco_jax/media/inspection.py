# SPDX-License-Identifier: Apache-2.0
"""Inspection of media files before cutting: streams, durations, and the first problem found.

Inspection reads every packet and decodes all the sound, but only the first picture. Damage inside
later pictures shows only when they are cut.
"""

import base64
import dataclasses
import hashlib
import os
import stat
from collections.abc import Callable
from typing import Any

import av
import cv2
import numpy as np
from av.error import FFmpegError

from mmdisco_jax.media.container import begin_seconds, open_media, picture_stream
from mmdisco_jax.media.cutting import ClipSpec
from mmdisco_jax.media.picture import fit
from mmdisco_jax.media.streams import LONGEST_PICTURE_SECONDS, Pictures, Sound, StreamError

# Name -> text. Only the first one in this order is reported; it may hide the later ones.
PROBLEMS = {
    "missing_file": "is named, and not there",
    "corrupt": "cannot be decoded",
    "missing_video": "has no moving pictures",
    "missing_audio": "has no sound track",
    "short": "is shorter than one clip",
    "duplicate": "has the same content as another file",
    "silent": "has a sound track without sound",
    "odd_rate": "has fewer frames or samples a second than are wanted",
}
SILENCE_PEAK = 1e-4  # share of full scale, -80 dB; dither of 16 bits reaches 3e-5
_THUMBNAIL_PIXELS = 96
# A file has lost its end if its streams stop this much earlier than its header says.
_LOST_SECONDS = 0.5
_LOST_SHARE = 0.02


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inspection:
    """Facts about one input: seconds, Hz and pixels; 0 where a stream is missing.

    Attributes:
      problem: a key of `PROBLEMS`, or "" for a good file.
      reason: the problem in words, with the measured values.
      sha256: digest of the file's bytes, followed by those of its separate sound file, if any.
      fps: number of frames divided by duration.
      variable_rate: whether frames are unevenly spaced.
      peak: largest magnitude of the sound, as a share of full scale.
      thumbnail: the first picture as a JPEG in base64, or "".
    """

    problem: str = ""
    reason: str = ""
    sha256: str = ""
    num_bytes: int = 0
    container: str = ""
    duration_seconds: float = 0.0
    width: int = 0
    height: int = 0
    fps: float = 0.0
    variable_rate: bool = False
    video_codec: str = ""
    sample_rate_hz: int = 0
    channels: int = 0
    audio_codec: str = ""
    peak: float = 0.0
    thumbnail: str = ""


def inspect(
    path: str, sound_path: str | None, spec: ClipSpec, heartbeat: Callable[[], None]
) -> Inspection:
    """Inspects a media file. Problems of the file are returned, never raised.

    Args:
      path: the file.
      sound_path: another file that holds its sound, or None.
      spec: the clips that will be cut.
      heartbeat: called at least every few seconds.
    """
    if not os.path.lexists(path):
        return Inspection(problem="missing_file", reason=PROBLEMS["missing_file"])
    found: dict[str, Any] = {}
    try:
        found["num_bytes"] = _num_bytes(path)
        if sound_path is not None:
            _num_bytes(sound_path)
        found["sha256"] = _digest(path, sound_path, heartbeat)
        with open_media(path) as container:
            found |= _pictures(container, spec, heartbeat)
        with open_media(path) as container:
            found["thumbnail"] = _thumbnail(container, spec, heartbeat)
        with open_media(sound_path or path) as container:
            found |= _sound(container, heartbeat)
    except StreamError as error:
        return _corrupt(found, str(error))
    except (FFmpegError, OSError, MemoryError) as error:
        return _corrupt(found, getattr(error, "strerror", None) or str(error) or "no memory")
    except Exception as error:  # a damaged file may break any assumption
        return _corrupt(found, f"{type(error).__name__}: {error}")
    problem, reason = _problem(found, spec)
    return Inspection(**_public(found), problem=problem, reason=reason)


def _corrupt(found: dict[str, Any], reason: str) -> Inspection:
    return Inspection(
        **_public(found), problem="corrupt", reason=f"{PROBLEMS['corrupt']}: {reason}"
    )


def _public(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if not key.startswith("_")}


def _num_bytes(path: str) -> int:
    """The file's size in bytes; StreamError for a pipe or a device, which might never end."""
    state = os.stat(path)
    if not stat.S_ISREG(state.st_mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        raise StreamError(f"it is {kinds.get(stat.S_IFMT(state.st_mode), 'a device')}, not a file")
    return state.st_size


def _digest(path: str, sound_path: str | None, heartbeat: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    for name in (path, sound_path):
        if name is None:
            continue
        with open(name, "rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
                heartbeat()
    return digest.hexdigest()


def _pictures(container: Any, spec: ClipSpec, heartbeat: Callable[[], None]) -> dict[str, Any]:
    """Facts about the pictures; keys that begin with _ are only for `_problem`."""
    found: dict[str, Any] = {
        "container": container.format.name.split(",")[0],
        "_begin": begin_seconds(container),
        "_claimed": (container.duration or 0) / av.time_base,
    }
    stream = picture_stream(container)
    if stream is None:
        return found
    if stream.codec_context is None:
        raise StreamError("no decoder knows its pictures")
    found |= {"width": stream.width, "height": stream.height}
    found["video_codec"] = stream.codec_context.name
    found["_claimed_video"] = (stream.duration or 0) * float(stream.time_base or 0)
    times, length = [], 0.0
    for packet in container.demux(stream):
        heartbeat()
        if packet.pts is not None and packet.size:
            times.append(float(packet.pts * packet.time_base))
            length = float((packet.duration or 0) * packet.time_base)
    if not times:
        raise StreamError("not one packet of its pictures says when it is shown")
    order = np.sort(times)
    steps = np.diff(order)
    if len(steps) and steps.max() > LONGEST_PICTURE_SECONDS:
        raise StreamError(f"its pictures jump to {order[steps.argmax() + 1]:.3f} s")
    length = length or (float(np.median(steps)) if len(steps) else 1 / spec.fps)
    found["_video"] = (float(order[0]), float(order[-1]) + length)
    found["duration_seconds"] = found["_video"][1] - found["_video"][0]
    found["fps"] = len(times) / max(found["duration_seconds"], 1e-9)
    # Containers round times to a millisecond.
    found["variable_rate"] = bool(len(steps)) and bool(np.ptp(steps) > 2.1e-3)
    return found


def _thumbnail(container: Any, spec: ClipSpec, heartbeat: Callable[[], None]) -> str:
    stream = picture_stream(container)
    if stream is None:
        return ""
    stream.codec_context.thread_count = 1  # one, as for cutting
    pictures = Pictures(container, stream, fps=spec.fps, heartbeat=heartbeat)
    frame = pictures.shown_at(pictures.first_seconds)
    if frame is None:
        return ""
    picture = fit(
        frame,
        height=_THUMBNAIL_PIXELS,
        width=_THUMBNAIL_PIXELS,
        policy="pad",
        pixel_aspect=pictures.pixel_aspect,
    )
    done, jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 70])
    return base64.b64encode(jpeg.tobytes()).decode() if done else ""


def _sound(container: Any, heartbeat: Callable[[], None]) -> dict[str, Any]:
    if not container.streams.audio:
        return {}
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        raise StreamError("no decoder knows its sound")
    found: dict[str, Any] = {
        "sample_rate_hz": stream.rate,
        "channels": stream.channels,
        "audio_codec": stream.codec_context.name,
    }
    low_rate = 8000  # enough to find out whether there is any sound
    sound = Sound(container, stream, sample_rate_hz=low_rate, heartbeat=heartbeat)
    start = first = round(sound.first_seconds * low_rate)
    peak = 0
    while True:
        piece = sound.samples(start, low_rate, slack=low_rate - 1)
        if piece is None:
            break
        peak = max(peak, int(np.abs(piece.astype(np.int32)).max()))
        start += low_rate
    found["peak"] = peak / 32768
    found["_audio"] = (first / low_rate, sound.end_seconds)
    return found


def _problem(found: dict[str, Any], spec: ClipSpec) -> tuple[str, str]:
    """The first problem in the order of `PROBLEMS`, and its reason; duplicates are found later."""
    video, audio = found.get("_video"), found.get("_audio")
    if lost := _missing_end(found, video, audio):
        return "corrupt", lost
    if video is None or audio is None:
        name = "missing_video" if video is None else "missing_audio"
        return name, PROBLEMS[name]
    both = min(video[1], audio[1]) - max(video[0], audio[0])
    if both < spec.clip_seconds - 0.5 / spec.fps:
        return "short", f"has {max(both, 0.0):.3f} s of pictures with sound, of {spec.clip_seconds}"
    if found["peak"] < SILENCE_PEAK:
        return "silent", f"{PROBLEMS['silent']}: its peak is {found['peak']:.6f} of full scale"
    if found["fps"] < 0.99 * spec.fps or found["sample_rate_hz"] < spec.sample_rate_hz:
        return "odd_rate", (
            f"has {found['fps']:.3f} frames and {found['sample_rate_hz']} samples a second, of "
            f"{spec.fps} and {spec.sample_rate_hz}"
        )
    return "", ""


def _missing_end(found: dict[str, Any], video: Any, audio: Any) -> str:
    """Describes how much shorter a file is than its header says; "" if it is whole."""
    ends = [stream[1] for stream in (video, audio) if stream]
    claims = [("", found["_claimed"], max(ends, default=0.0) - found["_begin"])]
    if video:
        claims.append((" of pictures", found["_claimed_video"], video[1] - video[0]))
    for what, claimed, has in claims:
        if ends and claimed - has > max(_LOST_SECONDS, _LOST_SHARE * claimed):
            return f"its end is missing: it says {claimed:.2f} s{what} and has {has:.2f} s"
    return ""
