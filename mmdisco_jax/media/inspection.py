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
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import av
import cv2
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import Colorspace

from mmdisco_jax.media.colour import colours_of, matrix_of
from mmdisco_jax.media.container import begin_seconds, open_media
from mmdisco_jax.media.cutting import ClipSpec
from mmdisco_jax.media.frames import counts_pictures, sound_delay_seconds
from mmdisco_jax.media.orientation import orientation_of
from mmdisco_jax.media.picture import fit
from mmdisco_jax.media.streams import LONGEST_PICTURE_SECONDS, Pictures, Sound, StreamError
from mmdisco_jax.media.tracks import choose_pictures, choose_sound

# Name -> text. A file may have several; the first one in this order comes first.
PROBLEMS = {
    "missing_file": "is named, and not there",
    "corrupt": "cannot be decoded",
    "missing_video": "has no moving pictures",
    "missing_audio": "has no sound track",
    "short": "is shorter than one clip",
    "duplicate": "has the same content as another file",
    "silent": "has a sound track without sound",
    "odd_rate": "has fewer frames or samples a second than are wanted",
    "several_tracks": "has several tracks of one kind, of which one is used",
    "no_times": "says only the order of its pictures, not their times",
    "interlaced": "has interlaced pictures",
    "hdr": "has high dynamic range or a wide gamut",
}
SILENCE_PEAK = 1e-4  # share of full scale, -80 dB; dither of 16 bits reaches 3e-5
# Channels of opposite phase leave this share of their peak, or less, in the mean.
_CANCELLED_SHARE = 0.01
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
      others: the file's other problems, with their reasons.
      changes: what is done to its pictures for display, such as "turned by 90 degrees clockwise".
      sha256: digest of the file's bytes, followed by those of its separate sound file, if any.
      fps: number of frames divided by duration.
      variable_rate: whether frames are unevenly spaced.
      peak: largest magnitude of the sound as it is recorded (the mean of all channels, by
        default), as a share of full scale.
      thumbnail: the first picture as a JPEG in base64, or "".
    """

    problem: str = ""
    reason: str = ""
    others: dict[str, str] = dataclasses.field(default_factory=dict)
    changes: str = ""
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
            film = choose_pictures(container, path)
            found |= _pictures(container, film.of(container), spec, heartbeat)
        with open_media(path) as container:
            found |= _first_picture(container, film.of(container), spec, heartbeat)
        with open_media(sound_path or path) as container:
            sound = choose_sound(container, sound_path or path)
            heard, counted = sound.of(container), found.get("_no_times") and not sound_path
            shift = -sound_delay_seconds(heard) if heard and counted else 0.0
            found |= _sound(container, heard, spec, shift, heartbeat)
        tracks = "; ".join(track.reason for track in (film, sound) if track.reason)
    except StreamError as error:
        return _corrupt(found, str(error))
    except (FFmpegError, OSError, MemoryError) as error:
        return _corrupt(found, getattr(error, "strerror", None) or str(error) or "no memory")
    except Exception as error:  # a damaged file may break any assumption
        return _corrupt(found, f"{type(error).__name__}: {error}")
    problems = _problems(found, spec) | ({"several_tracks": tracks} if tracks else {})
    return with_problems(Inspection(**_public(found)), problems)


def with_problems(inspection: Inspection, problems: Mapping[str, str]) -> Inspection:
    """The inspection with these problems (name -> reason), the first one in the order given."""
    first = next(iter(problems), "")
    others = {name: reason for name, reason in problems.items() if name != first}
    return dataclasses.replace(
        inspection, problem=first, reason=problems.get(first, ""), others=others
    )


def problems_of(inspection: Inspection) -> dict[str, str]:
    """All problems of a file and their reasons, in the order of `PROBLEMS`."""
    found = {inspection.problem: inspection.reason, **inspection.others}
    return {name: found[name] for name in PROBLEMS if name in found}


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


def _pictures(
    container: Any, stream: Any, spec: ClipSpec, heartbeat: Callable[[], None]
) -> dict[str, Any]:
    """Facts about the pictures; keys that begin with _ are only for `_problems`."""
    found: dict[str, Any] = {
        "container": container.format.name.split(",")[0],
        "_begin": begin_seconds(container),
        "_claimed": (container.duration or 0) / av.time_base,
    }
    if stream is None:
        return found
    found |= {"width": stream.width, "height": stream.height}
    found["video_codec"] = stream.codec_context.name
    found["_claimed_video"] = (stream.duration or 0) * float(stream.time_base or 0)
    found["_no_times"] = counts_pictures(container, stream)
    times, length = [], 0.0
    for packet in container.demux(stream):
        heartbeat()
        time = packet.dts if found["_no_times"] else packet.pts
        if time is not None and packet.size:
            times.append(float(time * packet.time_base))
            length = float((packet.duration or 0) * packet.time_base)
    if not times:
        raise StreamError("not one packet of its pictures says when it is shown")
    order = np.sort(times)
    steps = np.diff(order)
    if len(steps) and steps.max() > LONGEST_PICTURE_SECONDS:
        raise StreamError(f"its pictures jump to {order[steps.argmax() + 1]:.3f} s")
    length = length or (float(np.median(steps)) if len(steps) else 1 / spec.fps)
    found["_times"], found["_video"] = order, (float(order[0]), float(order[-1]) + length)
    found["duration_seconds"] = found["_video"][1] - found["_video"][0]
    found["fps"] = len(times) / max(found["duration_seconds"], 1e-9)
    # Containers round times to a millisecond.
    found["variable_rate"] = bool(len(steps)) and bool(np.ptp(steps) > 2.1e-3)
    return found


def _first_picture(
    container: Any, stream: Any, spec: ClipSpec, heartbeat: Callable[[], None]
) -> dict[str, Any]:
    """The thumbnail, and what the first picture needs to be displayed."""
    if stream is None:
        return {}
    stream.codec_context.thread_count = 1  # one, as for cutting
    notices: list[str] = []
    pictures = Pictures(container, stream, fps=spec.fps, heartbeat=heartbeat, notice=notices.append)
    frame = pictures.shown_at(pictures.first_seconds)
    found: dict[str, Any] = {"_still": pictures.still, "_interlaced": bool(notices)}
    if frame is None:
        return found
    picture = fit(
        frame,
        height=_THUMBNAIL_PIXELS,
        width=_THUMBNAIL_PIXELS,
        policy="pad",
        pixel_aspect=pictures.pixel_aspect,
    )
    done, jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 70])
    colours = colours_of(frame)
    found["_colours"] = str(colours) if colours else ""
    found["changes"] = "; ".join(_changes(frame, pictures.pixel_aspect))
    found["thumbnail"] = base64.b64encode(jpeg.tobytes()).decode() if done else ""
    return found


def _changes(frame: Any, pixel_aspect: float) -> Iterator[str]:
    if upright := str(orientation_of(frame)):
        yield upright
    if pixel_aspect != 1.0:
        yield f"pixels {pixel_aspect:.4g} times as wide as high made square"
    if (matrix := matrix_of(frame)) is not None:
        yield f"colours taken for {'BT.2020' if matrix == Colorspace.BT2020 else 'BT.709'}"


def _sound(
    container: Any, stream: Any, spec: ClipSpec, shift: float, heartbeat: Callable[[], None]
) -> dict[str, Any]:
    if stream is None:
        return {}
    found: dict[str, Any] = {
        "sample_rate_hz": stream.rate,
        "channels": stream.channels,
        "audio_codec": stream.codec_context.name,
    }
    low_rate = 8000  # enough to find out whether there is any sound
    sound = Sound(
        container,
        stream,
        sample_rate_hz=low_rate,
        channels=spec.channels,
        shift_seconds=shift,
        heartbeat=heartbeat,
    )
    start = first = round(sound.first_seconds * low_rate)
    peak = 0
    while True:
        piece = sound.samples(start, low_rate, slack=low_rate - 1)
        if piece is None:
            break
        peak = max(peak, int(np.abs(piece.astype(np.int32)).max()))
        start += low_rate
    found["peak"], found["_loudest"] = peak / 32768, sound.loudest
    found["_audio"] = (first / low_rate, sound.end_seconds)
    return found


def _problems(found: dict[str, Any], spec: ClipSpec) -> dict[str, str]:
    """The problems in the order of `PROBLEMS`, and their reasons; duplicates are found later."""
    video, audio = found.get("_video"), found.get("_audio")
    if lost := _missing_end(found, video, audio):
        return {"corrupt": lost}
    problems: dict[str, str] = {}
    film = None if video is None or found["_still"] else video
    if film is None:
        still = "" if video is None else ": its only picture is a still"
        problems["missing_video"] = PROBLEMS["missing_video"] + still
    if audio is None:
        problems["missing_audio"] = PROBLEMS["missing_audio"]
    has = _usable_seconds(film, audio, found, spec)
    if has < spec.clip_seconds - 0.5 / spec.fps:
        what = "pictures with sound" if film and audio else "pictures" if film else "sound"
        problems["short"] = f"has {max(has, 0.0):.3f} s of {what}, of {spec.clip_seconds}"
    if film and audio:
        problems |= _of_both(found, spec)
    if found.get("_no_times"):
        problems["no_times"] = f"{PROBLEMS['no_times']}: {found['container']} holds no times"
    if found.get("_interlaced"):
        problems["interlaced"] = PROBLEMS["interlaced"]
    if found.get("_colours"):
        problems["hdr"] = f"{PROBLEMS['hdr']}: {found['_colours']}"
    return problems


def _usable_seconds(video: Any, audio: Any, found: dict[str, Any], spec: ClipSpec) -> float:
    """From the beginning of the first clip to the end of pictures and sound, where there are both.

    The first clip begins with a picture, as in cutting.
    """
    if not (video and audio):
        one = video or audio
        return one[1] - one[0] if one else 0.0
    times = found["_times"]
    after = times[np.searchsorted(times, audio[0] - 0.5 / spec.fps) :]
    start = max(after[0] if len(after) else video[1], audio[0])
    return min(video[1], audio[1]) - start


def _of_both(found: dict[str, Any], spec: ClipSpec) -> dict[str, str]:
    """The problems that show only where there are pictures and sound."""
    problems: dict[str, str] = {}
    if silent := _silence(found["peak"], found["_loudest"], spec.channels):
        problems["silent"] = silent
    pictures_hz = found["fps"] * (2 if found["_interlaced"] else 1)  # one for each field
    if pictures_hz < 0.99 * spec.fps or found["sample_rate_hz"] < spec.sample_rate_hz:
        problems["odd_rate"] = (
            f"has {found['fps']:.3f} frames and {found['sample_rate_hz']} samples a second, of "
            f"{spec.fps} and {spec.sample_rate_hz}"
        )
    return problems


def _silence(peak: float, loudest: float, channels: str) -> str:
    """Why the sound is silent as it is recorded, with the remedy; "" if it is not.

    Args:
      peak: of what is recorded.
      loudest: the peak of any channel.
    """
    heard = loudest >= SILENCE_PEAK
    if peak >= (max(SILENCE_PEAK, _CANCELLED_SHARE * loudest) if heard else SILENCE_PEAK):
        return ""
    if not heard:
        return f"{PROBLEMS['silent']}: its peak is {peak:.6f} of full scale"
    why, remedy = {
        "mono": ("its channels cancel in their mean", "channels=left takes the first one"),
        "left": ("its first channel is silent", "channels=mono takes the mean of all"),
        "stereo": ("its first and last channels are silent", "channels=mono takes the mean"),
    }[channels]
    return (
        f"is silent as it is recorded: {why}, with a peak of {peak:.6f} of {loudest:.3f}; {remedy}"
    )


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
