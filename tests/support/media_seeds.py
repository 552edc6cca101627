# SPDX-License-Identifier: Apache-2.0
"""Small whole files of six containers, to be damaged: a moving pattern, with a tone."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from av.container import Flags

from tests.support.clock_media import tone

SECONDS, FPS, SIZE, RATE_HZ = 1.2, 10, 64, 48_000
# suffix: (FFmpeg's name, pictures, their format, sound)
FORMS = {
    "mp4": ("mp4", "libx264", "yuv420p", "aac"),
    "webm": ("webm", "libvpx-vp9", "yuv420p", "libopus"),
    "mkv": ("matroska", "ffv1", "yuv420p", "flac"),
    "avi": ("avi", "mpeg4", "yuv420p", "libmp3lame"),
    "ts": ("mpegts", "mpeg2video", "yuv420p", "mp2"),
    "gif": ("gif", "gif", "rgb8", None),
}
_OPTIONS = {
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "libx264": {"preset": "veryfast", "g": "6"},
}


def write_seed(path: Path, *, seconds: float = SECONDS, seed: int = 0) -> Path:
    """A whole file of the form that the suffix names; a GIF has its sound in a .wav beside it."""
    form, codec, pixels, sound = FORMS[path.suffix[1:]]
    with av.open(str(path), "w", format=form) as container:
        # Without it Matroska gets random numbers.
        container.flags |= Flags.bitexact.value
        fps = 25 if codec == "mpeg2video" else FPS
        video: Any = container.add_stream(codec, rate=fps)
        video.width = video.height = SIZE
        video.pix_fmt, video.options = pixels, _OPTIONS.get(codec, {})
        video.thread_count = 1  # x264's threads may choose otherwise on a busy machine
        packets = []
        if sound:
            audio = container.add_stream(sound, rate=RATE_HZ, layout="mono")
            frame = _sound(seconds)
            packets = [*audio.encode(frame), *audio.encode(None)]
        for picture in _pictures(seconds, pixels, fps, seed):
            packets += video.encode(picture)
        packets += video.encode(None)
        for packet in sorted(packets, key=lambda p: (p.dts or 0) * p.time_base):
            container.mux(packet)
    if sound is None:
        write_sound(path.with_suffix(".wav"), seconds)
    return path


def write_sound(path: Path, seconds: float = SECONDS) -> None:
    """The tone as WAV."""
    soundfile.write(path, tone(np.arange(round(seconds * 16_000)) / 16_000), 16_000)


def _sound(seconds: float) -> av.AudioFrame:
    wave = tone(np.arange(round(seconds * RATE_HZ)) / RATE_HZ).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, 0, Fraction(1, RATE_HZ)
    return frame


def _pictures(seconds: float, pixels: str, fps: int, seed: int) -> list[av.VideoFrame]:
    rng = np.random.default_rng(seed)
    pattern = rng.integers(0, 256, (SIZE // 8, SIZE // 8, 3)).repeat(8, 0).repeat(8, 1)
    pictures = []
    for index in range(round(seconds * fps)):
        shifted = np.roll(pattern, 4 * index, axis=1).astype(np.uint8)
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(shifted), format="rgb24")
        picture = picture.reformat(format=pixels)
        picture.pts, picture.time_base = index, Fraction(1, fps)
        pictures.append(picture)
    return pictures
