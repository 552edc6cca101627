# SPDX-License-Identifier: Apache-2.0
"""Lazily read tensors by name, so that a large model is never in memory twice."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike
from safetensors import SafetensorError, safe_open

from mmdisco_jax.porting.files import read_tensors

_DTYPES: Mapping[str, DTypeLike] = {  # safetensors' names
    "BF16": ml_dtypes.bfloat16,
    **{f"{kind}{bits}": f"{kind.lower()}{bits // 8}" for kind in "IU" for bits in (8, 16, 32, 64)},
    **{f"F{bits}": f"f{bits // 8}" for bits in (16, 32, 64)},
    "BOOL": np.bool_,
}


class LazyTensor(NamedTuple):
    """Shape and dtype of a tensor, and a function that reads it."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]


class LazyTensors(Mapping[str, np.ndarray]):
    """Mapping from names to arrays; each look-up reads the tensor again, and none is kept."""

    def __init__(self, entries: Mapping[str, LazyTensor]):
        self.entries = dict(entries)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.entries[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, name: object) -> bool:
        return name in self.entries  # Mapping's own would read the tensor

    def renamed(self, rule: Callable[[str], str | None]) -> "LazyTensors":
        """Renames the tensors by `rule`; a tensor whose new name is None is dropped.

        Raises:
          ValueError: two tensors get the same name.
        """
        found: dict[str, LazyTensor] = {}
        for name, entry in self.entries.items():
            new = rule(name)
            if new in found:
                raise ValueError(f"two tensors are called {new!r}; one of them was {name!r}.")
            if new is not None:
                found[new] = entry
        return LazyTensors(found)


def as_lazy(tensors: Mapping[str, np.ndarray]) -> LazyTensors:
    """Wraps any mapping of arrays as `LazyTensors`, without copying them."""
    if isinstance(tensors, LazyTensors):
        return tensors

    def entry(name: str) -> LazyTensor:
        array = tensors[name]
        return LazyTensor(tuple(array.shape), np.dtype(array.dtype), lambda: tensors[name])

    return LazyTensors({name: entry(name) for name in tensors})


def open_files(paths: Iterable[str | Path]) -> LazyTensors:
    """Opens several weight files as one mapping of tensors.

    `.safetensors` files are read tensor by tensor. PyTorch files are opened as by `read_tensors`,
    without running their pickles, and stay memory-mapped while the result exists.

    Raises:
      ValueError: unreadable content, a dtype that NumPy lacks, or a name that is in two files.
      FileNotFoundError: no such file.
    """
    entries: dict[str, LazyTensor] = {}
    for path in map(Path, paths):
        found = _safetensors(path) if path.suffix == ".safetensors" else as_lazy(read_tensors(path))
        twice = sorted(entries.keys() & found.keys())
        if twice:
            raise ValueError(f"{path}: holds {twice[0]!r}, and so does another file of the model")
        entries.update(found.entries if isinstance(found, LazyTensors) else found)
    return LazyTensors(entries)


def _safetensors(path: Path) -> dict[str, LazyTensor]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weight file")
    try:
        handle = safe_open(path, framework="np")  # maps the file and reads its header
        names = handle.keys()
        slices = {name: handle.get_slice(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from error
    kinds = {name: part.get_dtype() for name, part in slices.items()}
    strange = sorted(name for name, kind in kinds.items() if kind not in _DTYPES)
    if strange:
        raise ValueError(
            f"{path}: {strange[0]!r} is {kinds[strange[0]]}; known are {sorted(_DTYPES)}. Get the "
            "file in one of these."
        )
    return {
        name: LazyTensor(
            tuple(part.get_shape()),
            np.dtype(_DTYPES[kinds[name]]),
            functools.partial(handle.get_tensor, name),
        )
        for name, part in slices.items()
    }
