# SPDX-License-Identifier: Apache-2.0
"""Atomic file writes, file digests, and uint8 pixels and int16 sound to floats and back.

Atomic: a reader sees the old file or folder or the new one, never a part of one. The conversions
take numpy and JAX arrays, traced ones too, and return the same kind.
"""

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

# Sound is read as int16 / 32768 and written as float * 32767: full scale never overflows.
INT16_SCALE_IN, INT16_SCALE_OUT = 32768.0, 32767.0
# A sampler may overshoot [-1, 1] a little, and that is clipped. Beyond this the array is something
# else, such as pixels in 0..255 or int16 sound cast to float, and clipping would hide the mistake.
MAX_OVERSHOOT = 8.0


class WriteError(OSError):
    """A file could not be written; nothing of it is left. Names the path and the remedy."""


@contextlib.contextmanager
def replacing(
    path: str | os.PathLike[str], *, failures: tuple[type[Exception], ...] = ()
) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path`, renamed to `path` once the body succeeds.

    The rename replaces a file already at `path` in one step, so a reader sees the old file or the
    new one. Missing parent folders are made. On any exception, an interrupt included, the
    temporary file is removed and `path` is as it was.

    Args:
      path: the file to write.
      failures: the writer's own exception types that mean the file could not be written, beside
        OSError.

    Raises:
      WriteError: for OSError and `failures`.
    """
    target = Path(path)
    # In the same folder: a rename across file systems would copy, and not be atomic.
    temporary = target.parent / f".{uuid.uuid4().hex}.part"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())  # some file systems report a full disk only here
        temporary.replace(target)
    except (OSError, *failures) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise WriteError(
            getattr(error, "errno", None) or 0,
            f"could not write {target}: {reason}. Nothing was left behind; free disk space, "
            "check that the folder is writable, or choose another output folder, and run again",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes `data` to `path` as a whole or not at all; see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def replacing_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a new folder beside `path`, renamed to `path` once the body succeeds.

    Whatever the body raises, the new folder is removed and `path` is as it was.

    Raises:
      FileExistsError: `path` exists and is not an empty folder; nothing is ever overwritten.
    """
    target = Path(path)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target}: exists already; move it away or choose another folder")
    temporary = target.with_name(f".{target.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if target.is_dir():
            target.rmdir()
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file in hexadecimal; FileNotFoundError if there is none."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {path} to take the digest of; correct the path.")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def num_records(path: str | os.PathLike[str]) -> int:
    """Number of records in an array_record file; 0 if it is missing, or torn by a power cut."""
    from array_record.python.array_record_module import ArrayRecordReader  # slow to import

    try:
        reader = ArrayRecordReader(str(path))
        count = reader.num_records()
        reader.close()  # a torn file may be told only here
        return count
    except RuntimeError:
        return 0


def rename_durably(temporary: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Renames a file so that the rename and all earlier ones are on the disk at the return."""
    _sync(temporary)
    os.replace(temporary, path)
    _sync(os.path.dirname(path) or ".")


def _sync(path: str | os.PathLike[str]) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def from_uint8(pixels: ArrayLike, dtype: DTypeLike = np.float32) -> Any:
    """Pixels 0..255 as floats of `dtype` in [-1, 1]; any shape."""
    x = _array(pixels)
    return x.astype(dtype) / 127.5 - 1.0


def to_uint8(video: ArrayLike, *, check: bool = True) -> Any:
    """Video in [-1, 1] as uint8: -1 becomes 0 and 1 becomes 255, rounded to nearest, clipped.

    Args:
      video: float `[f h w 3]` or `[b f h w 3]`; any shape without the check.
      check: whether to look at the values and the shape; traced arrays have no values to look at.

    Raises:
      ValueError: another dtype, rank or channel count, a NaN, or a value beyond `MAX_OVERSHOOT`.
    """
    if check:
        video = checked_signal(video, name="video", ranks={4: "[f h w 3]", 5: "[b f h w 3]"})
        if video.shape[-1] != 3:
            raise ValueError(
                f"video has shape {video.shape}, but its last axis must hold the 3 RGB channels; "
                "decode latents and move channels last before exporting."
            )
    x = _rounded_in(video)
    xp = x.__array_namespace__()
    return xp.rint((xp.clip(x, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)


def from_int16(sound: ArrayLike, dtype: DTypeLike = np.float32) -> Any:
    """Sound as floats of `dtype` in [-1, 1): int16 is divided by 32768, floats are kept as is."""
    x = _array(sound)
    if x.dtype == np.int16:
        return x.astype(dtype) / INT16_SCALE_IN
    if x.dtype.kind in "iub":
        raise ValueError(f"sound has dtype {x.dtype}, but must be int16, or floats in [-1, 1].")
    return x.astype(dtype)


def to_int16(waveform: ArrayLike, *, check: bool = True) -> Any:
    """Sound in [-1, 1] as int16: times 32767, rounded to nearest, clipped and never wrapped.

    Args:
      waveform: float `[samples]` or `[b samples]`, mono; any shape without the check.
      check: as of `to_uint8`.

    Raises:
      ValueError: another dtype or rank, a NaN, or a value beyond `MAX_OVERSHOOT`.
    """
    if check:
        ranks = {1: "[samples]", 2: "[b samples]"}
        waveform = checked_signal(waveform, name="waveform", ranks=ranks)
    x = _rounded_in(waveform)
    xp = x.__array_namespace__()
    return xp.rint(xp.clip(x, -1.0, 1.0) * INT16_SCALE_OUT).astype(np.int16)


def checked_signal(array: ArrayLike, *, name: str, ranks: dict[int, str]) -> NDArray[np.floating]:
    """Checks the dtype, rank and values of a signal and returns it as an array on the host.

    Args:
      array: what should be floats in [-1, 1], up to an overshoot of `MAX_OVERSHOOT`.
      name: of the argument, for errors.
      ranks: number of axes -> the form to name in an error.

    Raises:
      ValueError: another dtype or rank, a NaN, or a value beyond `MAX_OVERSHOOT`.
    """
    values = np.asarray(array)
    if values.dtype.kind in "iub":
        raise ValueError(
            f"{name} has dtype {values.dtype}, but must be floating point in [-1, 1]; "
            "integer samples need no conversion."
        )
    values = _rounded_in(values)
    if values.ndim not in ranks:
        raise ValueError(
            f"{name} has shape {values.shape}, but must be {' or '.join(ranks.values())}."
        )
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise ValueError(
            f"{name} holds {count} NaN or infinite values of {values.size}; the model or the "
            "sampler diverged: lower the guidance scale or check the weights."
        )
    peak = float(np.abs(values).max(initial=0.0))
    if peak > MAX_OVERSHOOT:
        raise ValueError(
            f"{name} reaches {peak:.4g}, but must lie in [-1, 1] (an overshoot up to "
            f"{MAX_OVERSHOOT:g} is clipped); scale it to [-1, 1] first."
        )
    return values


def _array(x: ArrayLike) -> Any:
    return x if hasattr(x, "__array_namespace__") else np.asarray(x)


def _rounded_in(x: ArrayLike) -> Any:
    """Casts bfloat16 and float16, which are too coarse to round in, to float32."""
    array = _array(x)
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)
