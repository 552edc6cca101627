# SPDX-License-Identifier: Apache-2.0
"""Media made for the tests, in which every pixel and sample tells its own time.

Each frame is grey with value 20 + 80 * (its time in seconds); the sound at
time t is `tone(t)`. Stored losslessly (FFV1 and PCM in Matroska), so what comes back can be
compared with the closed form.
"""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

TONE_HZ = 220.0


def tone(seconds: np.ndarray) -> np.ndarray:
    """Half-scale sine on the absolute clock."""
    return 0.5 * np.sin(2 * np.pi * TONE_HZ * seconds)


def grey_of(seconds: float) -> float:
    return 20.0 + 80.0 * seconds


def seconds_of(grey: np.ndarray) -> np.ndarray:
    return (np.asarray(grey, np.float64) - 20.0) / 80.0


def write_clock(
    path: Path,
    *,
    frame_seconds: list[float],
    sound_runs: list[tuple[float, float]],
    rate_hz: int = 48_000,
    channel_gains: tuple[float, ...] = (1.0,),
    size: tuple[int, int] = (16, 16),
    nominal_fps: int = 30,
) -> Path:
    """Writes frames shown at `frame_seconds` and sound that exists only in `sound_runs`."""
    milli = Fraction(1, 1000)
    with av.open(str(path), "w", format="matroska") as container:
        video = container.add_stream("ffv1", rate=nominal_fps)
        video.height, video.width, video.pix_fmt = *size, "bgr0"
        video.codec_context.time_base = milli
        packets = []
        if channel_gains:
            layout = {1: "mono", 2: "stereo"}[len(channel_gains)]
            audio = container.add_stream("pcm_s16le", rate=rate_hz, layout=layout)
            for frame in _sound(sound_runs, rate_hz, channel_gains, layout):
                packets += audio.encode(frame)
        for seconds in frame_seconds:
            grey = np.full((*size, 3), round(min(grey_of(seconds), 255)), np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = round(seconds * 1000), milli
            packets += video.encode(frame)
        packets += video.encode(None)
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            container.mux(packet)
    return path


def _sound(
    runs: list[tuple[float, float]], rate_hz: int, gains: tuple[float, ...], layout: str
) -> Iterator[av.AudioFrame]:
    """Blocks of 20 ms of `tone`, each presented at its own time."""
    for start, end in runs:
        samples = np.arange(round(start * rate_hz), round(end * rate_hz))
        for block in np.split(samples, range(960, len(samples), 960)):
            wave = np.rint(32767 * tone(block / rate_hz))
            packed = np.stack([gain * wave for gain in gains], axis=-1).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(packed.reshape(1, -1), format="s16", layout=layout)
            frame.sample_rate, frame.pts = rate_hz, int(block[0])
            frame.time_base = Fraction(1, rate_hz)
            yield frame
