# SPDX-License-Identifier: Apache-2.0
"""MP4 with sound, WAV and PNG files, written whole or not at all.

What is exact in an MP4 of `write_mp4`: frame i is shown at i / fps, and sample 0 of the sound is
heard at time 0. AAC encoders put a run of priming samples before the sound; the file's edit list
skips them, and PyAV and the browsers honour it. There are no B-frames, so no video delay either.
What is not: both codecs are lossy; the file counts the sound's duration in steps of 16 samples,
rounded up; and a decoder that ignores the edit list's end returns up to 1023 samples of padding
after the last one (cut at the audio stream's duration).
"""

import io
import os
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import av.container
import numpy as np
import soundfile
from av.error import FFmpegError
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from numpy.typing import ArrayLike, NDArray

from mmdisco_jax.io import checked_signal, from_int16, replacing, to_int16, write_bytes

_AAC_RATES_HZ = (
    7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000,
)  # fmt: skip


def write_mp4(
    path: str | os.PathLike[str],
    video: ArrayLike,
    waveform: ArrayLike | None,
    *,
    fps: float | Fraction,
    sample_rate_hz: int,
    scale: int = 1,
    crf: int = 12,
) -> None:
    """Writes one clip as H.264 (yuv420p, BT.709) and AAC, index first so that it streams.

    Args:
      path: the file to write; a file already there is replaced in one step.
      video: uint8 `[f h w 3]`, RGB.
      waveform: mono `[samples]`, float in [-1, 1] (clipped) or int16, or None for no sound.
      fps: frames per second, > 0.
      sample_rate_hz: sample rate of `waveform`; one that AAC knows. Not used without sound.
      scale: integer factor by which each pixel is repeated in height and width, >= 1.
      crf: H.264 quality, 0 (lossless luma) to 51; 12 is visually lossless.

    Raises:
      ValueError: an argument breaks the rules above.
      WriteError: the file could not be written; nothing is left behind.
    """
    frames = _checked_video(video, scale=scale)
    rate = Fraction(fps).limit_denominator(1001) if np.isfinite(float(fps)) else Fraction(0)
    if rate <= 0:
        raise ValueError(f"fps is {fps}, but must be a positive number of frames per second.")
    if not 0 <= crf <= 51:
        raise ValueError(f"crf is {crf}, but must be in 0..51; smaller is better quality.")
    sound = None
    if waveform is not None:
        sound = checked_waveform(waveform)
        if sample_rate_hz not in _AAC_RATES_HZ:
            raise ValueError(
                f"sample_rate_hz is {sample_rate_hz}, but AAC knows only {_AAC_RATES_HZ}; "
                "resample the waveform to one of them."
            )
    movflags = {"movflags": "+faststart"}
    with (
        replacing(path, failures=(FFmpegError,)) as temporary,
        av.open(str(temporary), "w", format="mp4", options=movflags) as container,
    ):
        _encode(
            container, frames, sound, rate=rate, sample_rate_hz=sample_rate_hz, scale=scale, crf=crf
        )


def _encode(
    container: av.container.OutputContainer,
    frames: NDArray[np.uint8],
    sound: NDArray[np.float32] | None,
    *,
    rate: Fraction,
    sample_rate_hz: int,
    scale: int,
    crf: int,
) -> None:
    """Encodes both streams, interleaved: the sound of each frame beside it."""
    video_stream = container.add_stream("libx264", rate=rate)
    _configure_video(video_stream, frames, crf=crf, scale=scale)
    pictures = _pictures(frames, rate=rate, scale=scale)
    if sound is None:
        for picture in pictures:
            container.mux(video_stream.encode(picture))
        container.mux(video_stream.encode(None))
        return
    audio_stream = container.add_stream("aac", rate=sample_rate_hz, layout="mono")
    # AAC allows at most 6144 bits per 1024 samples and channel.
    audio_stream.bit_rate = min(128_000, 6 * sample_rate_hz)
    ends = [round((i + 1) / rate * sample_rate_hz) for i in range(len(frames))]
    ends[-1] = len(sound)  # sound that outlasts the pictures is kept
    start = 0
    for picture, end in zip(pictures, ends, strict=True):
        container.mux(video_stream.encode(picture))
        if start < min(end, len(sound)):
            piece = _audio_frame(sound[start:end], start, sample_rate_hz)
            container.mux(audio_stream.encode(piece))
            start = end
    container.mux(video_stream.encode(None))
    container.mux(audio_stream.encode(None))


def _checked_video(video: ArrayLike, *, scale: int) -> NDArray[np.uint8]:
    frames = np.asarray(video)
    if frames.dtype != np.uint8:
        raise ValueError(f"video has dtype {frames.dtype}, but must be uint8; use io.to_uint8.")
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(
            f"video has shape {frames.shape}, but must be [f h w 3] with no empty axis; "
            "write one clip at a time."
        )
    if scale != int(scale) or scale < 1:
        raise ValueError(f"scale is {scale}, but must be a whole number >= 1.")
    height, width = frames.shape[1] * scale, frames.shape[2] * scale
    if height % 2 or width % 2:
        raise ValueError(
            f"the written picture would be {height} x {width} pixels, but yuv420p needs even "
            "sizes; use an even scale or crop a row or column."
        )
    return frames


def _configure_video(
    stream: av.VideoStream, frames: NDArray[np.uint8], *, crf: int, scale: int
) -> None:
    stream.height, stream.width = frames.shape[1] * scale, frames.shape[2] * scale
    stream.pix_fmt = "yuv420p"
    # bf=0: B-frames would delay the first picture, and the edit list would have to hide it.
    stream.options = {"crf": str(crf), "preset": "medium", "bf": "0", "g": "24"}
    # Where swscale puts it, amid four pixels; a decoder takes it to lie between two.
    stream.options |= {"chroma_sample_location": "center"}
    # Untagged colours are guessed, and players guess differently.
    stream.codec_context.colorspace = Colorspace.ITU709
    stream.codec_context.color_range = ColorRange.MPEG
    stream.codec_context.color_primaries = ColorPrimaries.BT709
    stream.codec_context.color_trc = ColorTrc.BT709


def _pictures(frames: NDArray[np.uint8], *, rate: Fraction, scale: int) -> Iterator[av.VideoFrame]:
    """One encoder frame per picture, with pts i in units of 1 / rate."""
    for index, frame in enumerate(frames):
        pixels = np.ascontiguousarray(frame.repeat(scale, axis=0).repeat(scale, axis=1))
        picture = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        picture.pts, picture.time_base = index, 1 / rate
        yield picture


def _audio_frame(
    piece: NDArray[np.float32], start_sample: int, sample_rate_hz: int
) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(piece[None], format="fltp", layout="mono")
    frame.sample_rate = sample_rate_hz
    frame.pts, frame.time_base = start_sample, Fraction(1, sample_rate_hz)
    return frame


def write_wav(path: str | os.PathLike[str], waveform: ArrayLike, sample_rate_hz: int) -> None:
    """Writes a mono 16-bit PCM WAV, atomically.

    Args:
      path: the file to write; a file already there is replaced in one step.
      waveform: `[samples]`, float in [-1, 1] (values outside are clipped), or int16, which is
        written as it is.
      sample_rate_hz: samples per second, > 0.

    Raises:
      ValueError: wrong rank, dtype or range, NaN, or a rate that is not a positive whole number.
      WriteError: the file could not be written; nothing is left behind.
    """
    if sample_rate_hz != int(sample_rate_hz) or sample_rate_hz <= 0:
        raise ValueError(f"sample_rate_hz is {sample_rate_hz}, but must be a whole number > 0.")
    whole = np.asarray(waveform).dtype == np.int16
    samples = _checked_int16(waveform) if whole else to_int16(checked_waveform(waveform))
    encoded = io.BytesIO()
    soundfile.write(encoded, samples, int(sample_rate_hz), format="WAV", subtype="PCM_16")
    write_bytes(path, encoded.getvalue())


def checked_waveform(waveform: ArrayLike) -> NDArray[np.float32]:
    """One mono clip `[samples]`, float or int16, as float32 in [-1, 1], clipped.

    Raises:
      ValueError: another dtype or rank, no samples, a NaN, or a value beyond `io.MAX_OVERSHOOT`.
    """
    if np.asarray(waveform).dtype == np.int16:
        return from_int16(_checked_int16(waveform))
    values = checked_signal(waveform, name="waveform", ranks={1: "[samples]"})
    _require_samples(values)
    return np.clip(values, -1.0, 1.0).astype(np.float32)


def _checked_int16(waveform: ArrayLike) -> NDArray[np.int16]:
    samples = np.asarray(waveform)
    if samples.ndim != 1:
        raise ValueError(f"waveform has shape {samples.shape}, but must be [samples].")
    _require_samples(samples)
    return samples


def _require_samples(samples: NDArray[Any]) -> None:
    if samples.size == 0:
        raise ValueError("waveform is empty; pass None for a video without sound.")


def write_png(path: str | os.PathLike[str], image: ArrayLike) -> None:
    """Writes an uint8 `[h w 3]` RGB image as a lossless PNG, atomically; errors as `write_wav`."""
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3 or 0 in pixels.shape:
        raise ValueError(
            f"image has dtype {pixels.dtype} and shape {pixels.shape}, but must be uint8 [h w 3]."
        )
    encoder = av.CodecContext.create("png", "w")
    encoder.height, encoder.width = pixels.shape[:2]
    encoder.pix_fmt, encoder.time_base = "rgb24", Fraction(1, 1)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    write_bytes(path, b"".join(bytes(packet) for packet in packets))
