# SPDX-License-Identifier: Apache-2.0
"""Reading and writing of weight files: safetensors, and PyTorch files without running pickles."""

import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mmdisco_jax.io import replacing

TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
# torch.load raises these for damaged or truncated files and for files that hold more than tensors.
_UNREADABLE = (
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    AssertionError,
    struct.error,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)
_KNOWN = (".safetensors", *TORCH_SUFFIXES)


def read_tensors(path: str | Path, *, entry: str | None = None) -> dict[str, np.ndarray]:
    """Reads all tensors of a weight file; returns name -> array in the file's layout.

    Files with the suffixes `.pt .pth .bin .ckpt` need PyTorch. They are read with
    `weights_only=True`, so no code in them is ever executed; their bfloat16 becomes float32.

    Args:
      entry: key of the state dict inside a file that holds several, such as "state_dict".

    Raises:
      ValueError: unknown suffix, unreadable content, or anything but a dict of tensors.
      FileNotFoundError: no such file.
      RuntimeError: PyTorch is needed but not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weight file")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path}: not a readable safetensors file ({error})") from error
    _require_known(path)
    return _read_torch(path, entry)


def write_tensors(path: str | Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes a weight file of any suffix that `read_tensors` knows, as a whole or not at all.

    PyTorch's suffixes give a plain state dict, as `torch.load` and the official code expect it.

    Raises:
      ValueError: unknown suffix.
      RuntimeError: PyTorch is needed but not installed.
      WriteError: the file could not be written; nothing is left behind.
    """
    path = Path(path)
    _require_known(path)
    arrays = {name: np.array(value, order="C") for name, value in tensors.items()}
    torch = None if path.suffix == ".safetensors" else _torch(path, "writing")
    with replacing(path, failures=(SafetensorError,)) as partial:
        if torch is None:
            save_file(arrays, partial)
        else:
            torch.save({name: torch.from_numpy(value) for name, value in arrays.items()}, partial)


def _require_known(path: Path) -> None:
    if path.suffix not in _KNOWN:
        raise ValueError(f"{path}: suffix {path.suffix!r} is unknown; known suffixes: {_KNOWN}")


def _torch(path: Path, verb: str) -> Any:
    try:
        import torch
    except ImportError as error:
        raise RuntimeError(
            f"{path}: {verb} {path.suffix} files needs PyTorch (pip install torch); or convert "
            "to and from .safetensors where it is installed"
        ) from error
    return torch


def _reason(error: Exception) -> str:
    """Reason for refusing a PyTorch file, without PyTorch's advice on running its code anyway."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    if found:
        return (
            f"it wants to call {found[1]!r}, and code in a weight file is never run. Ask for a "
            "plain state dict."
        )
    return "it is damaged or of another kind. Get the file again."


def _read_torch(path: Path, entry: str | None) -> dict[str, np.ndarray]:
    torch = _torch(path, "reading")
    try:
        # Memory-mapped if possible: PyTorch has written zip files since 1.6.
        mapped = zipfile.is_zipfile(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except _UNREADABLE as error:
        raise ValueError(f"{path}: cannot be read as plain tensors: {_reason(error)}") from error
    if entry is not None:
        if not isinstance(content, Mapping) or entry not in content:
            raise ValueError(f"{path}: has no entry {entry!r}")
        content = content[entry]
    is_tensors = isinstance(content, Mapping) and all(map(torch.is_tensor, content.values()))
    if not is_tensors:
        inside = list(content)[:12] if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(f"{path}: holds {inside}, not only tensors; name the state dict by entry=")
    wide = {torch.bfloat16: torch.float32}
    return {name: x.to(wide.get(x.dtype, x.dtype)).numpy() for name, x in content.items()}
