# SPDX-License-Identifier: Apache-2.0
"""Tensors by name that are read one by one, so that a large model is never held twice."""

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


class Entry(NamedTuple):
    """What is known of a tensor before it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]


class LazyTensors(Mapping[str, np.ndarray]):
    """Name -> array; each look-up reads the tensor anew and nothing is kept."""

    def __init__(self, entries: Mapping[str, Entry]):
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
        """The same tensors under the names that `rule` gives; None leaves one out.

        Raises:
          ValueError: two tensors of one name.
        """
        found: dict[str, Entry] = {}
        for name, entry in self.entries.items():
            new = rule(name)
            if new in found:
                raise ValueError(f"two tensors are called {new!r}; one of them was {name!r}.")
            if new is not None:
                found[new] = entry
        return LazyTensors(found)


def as_lazy(tensors: Mapping[str, np.ndarray]) -> LazyTensors:
    """Any mapping with shapes and dtypes known beforehand; arrays in memory stay where they are."""
    if isinstance(tensors, LazyTensors):
        return tensors

    def entry(name: str) -> Entry:
        array = tensors[name]
        return Entry(tuple(array.shape), np.dtype(array.dtype), lambda: tensors[name])

    return LazyTensors({name: entry(name) for name in tensors})


def open_files(paths: Iterable[str | Path]) -> LazyTensors:
    """The tensors of these weight files together.

    `.safetensors` are read tensor by tensor. PyTorch's suffixes are read as `read_tensors` does,
    without running their pickle, and stay mapped while the result lives.

    Raises:
      ValueError: unreadable content, a dtype that NumPy lacks, or a name that two files hold.
      FileNotFoundError: no such file.
    """
    entries: dict[str, Entry] = {}
    for path in map(Path, paths):
        found = _safetensors(path) if path.suffix == ".safetensors" else as_lazy(read_tensors(path))
        twice = sorted(entries.keys() & found.keys())
        if twice:
            raise ValueError(f"{path}: holds {twice[0]!r}, and so does another file of the model")
        entries.update(found.entries if isinstance(found, LazyTensors) else found)
    return LazyTensors(entries)


def _safetensors(path: Path) -> dict[str, Entry]:
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
        name: Entry(
            tuple(part.get_shape()),
            np.dtype(_DTYPES[kinds[name]]),
            functools.partial(handle.get_tensor, name),
        )
        for name, part in slices.items()
    }
