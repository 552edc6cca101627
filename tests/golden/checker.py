# SPDX-License-Identifier: Apache-2.0
"""Compare this project with golden files: .npz of inputs and outputs of the official PyTorch code.

A golden file holds named arrays in the official layouts (channels first) and `meta`, a JSON string
with `kind` and, where the network is random, `seed` and `shapes` (official parameter name ->
PyTorch shape). Weights and named inputs are not stored; `Golden.weights` and `Golden.input` draw
them again.

To add a kind, write `tests/golden/kinds/<name>.py` with one function

    def check(golden: Golden) -> dict[str, Pair]

that reads what it needs (`golden.require("config")`, `golden["video"]`, `golden.input(...)`,
`golden.weights()`), runs this project's code, and returns for each compared array
`Pair(got, want, bound)` in the official layout; then add one line to `KINDS`. The bound is on
||got - want|| / ||want||: `FORWARD` for values, `GRADIENT` for input gradients, 0 for exact
equality. Every array of the file must be read, otherwise the check fails: a file cannot pass by
being ignored.
"""

import json
import zipfile
import zlib
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

FORWARD = 1e-4  # float32 forward passes
GRADIENT = 1e-3  # float32 gradients with respect to inputs

KINDS = {
    "av_align": "tests.golden.kinds.av_align",
    "clap_text": "tests.golden.kinds.text_encoders",
    "clip_text": "tests.golden.kinds.text_encoders",
    "ddpm_scheduler": "tests.golden.kinds.ddpm_scheduler",
    "discriminator": "tests.golden.kinds.discriminator",
    "mm_diffusion_unet": "tests.golden.kinds.mm_diffusion_unet",
    "image_sr_unet": "tests.golden.kinds.image_sr_unet",
    "unet2d_condition": "tests.golden.kinds.diffusion_unets",
    "unet_motion": "tests.golden.kinds.diffusion_unets",
    "dpm_solver++": "tests.golden.kinds.dpm_solver",
    "mm_diffusion_sampling": "tests.golden.kinds.mm_diffusion_sampling",
    "mmdisco_mm_diffusion_sample": "tests.golden.kinds.guided_mm_diffusion",
    "mmdisco_sample": "tests.golden.kinds.mmdisco_sample",
    "autoencoder_kl": "tests.golden.kinds.autoencoder_kl",
    "speecht5_hifigan": "tests.golden.kinds.speecht5_hifigan",
    "log_mel": "tests.golden.kinds.log_mel",
}


class GoldenError(ValueError):
    """A file that cannot be checked: unreadable, unknown kind, or arrays that nothing compares."""


class Pair(NamedTuple):
    """This project's array, the official code's, and the largest relative error allowed."""

    got: np.ndarray
    want: np.ndarray
    bound: float


class Row(NamedTuple):
    """Outcome for one array; `error` is NaN or inf where the two cannot be compared."""

    name: str
    error: float
    bound: float
    note: str = ""

    @property
    def passed(self) -> bool:
        return self.error <= self.bound  # False for NaN


class Golden:
    """One golden file, fully read; remembers which arrays were used."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                self._arrays = {name: archive[name] for name in archive.files}
            self.meta: dict = json.loads(str(self._arrays.pop("meta")))
            self.kind = str(self.meta["kind"])
        except FileNotFoundError:
            raise GoldenError(f"{self.path}: no such file") from None
        except (
            OSError,
            EOFError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise GoldenError(
                f"{self.path}: not a readable golden file ({type(error).__name__}: {error}); "
                "it must be an .npz with a `meta` JSON string that names its `kind`"
            ) from error
        self._unread = set(self._arrays)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            raise GoldenError(
                f"{self.path}: array {name!r} is missing; it has {sorted(self._arrays)}"
            )
        self._unread.discard(name)
        return self._arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    @property
    def names(self) -> list[str]:
        """Names of all arrays, in file order."""
        return list(self._arrays)

    @property
    def unread(self) -> list[str]:
        """Names of arrays no check has read so far."""
        return sorted(self._unread)

    def require(self, key: str):
        """Value of a `meta` entry; raises `GoldenError` if it is absent."""
        if key not in self.meta:
            raise GoldenError(f"{self.path}: meta has no {key!r}, which kind {self.kind!r} needs")
        return self.meta[key]

    def weights(self) -> dict[str, np.ndarray]:
        """All parameters of the random network: official name -> float32, PyTorch shape."""
        seed = self.require("seed")
        return {key: _parameter(seed, key, shape) for key, shape in self.require("shapes").items()}

    def input(self, name: str, shape: Sequence[int]) -> np.ndarray:
        """The named standard normal float32 input of that shape."""
        rng = np.random.default_rng([self.require("seed"), 7, zlib.crc32(name.encode())])
        return rng.standard_normal(tuple(shape), dtype=np.float32)


def _parameter(seed: int, key: str, shape: Sequence[int]) -> np.ndarray:
    rng = np.random.default_rng([seed, zlib.crc32(key.encode())])
    normal = rng.standard_normal(tuple(shape), dtype=np.float32)
    if len(shape) >= 2:
        return (normal / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
    return np.float32(0.1) * normal + np.float32(0 if key.endswith("bias") else 1)


def relative_error(got: ArrayLike, want: ArrayLike) -> float:
    """||got - want|| / ||want|| in float64; ||got|| if `want` is zero."""
    a, b = np.asarray(got, np.float64), np.asarray(want, np.float64)
    scale = float(np.linalg.norm(b.ravel()))
    return float(np.linalg.norm((a - b).ravel())) / (scale or 1.0)


def _compare(name: str, pair: Pair) -> Row:
    got, want = np.asarray(pair.got), np.asarray(pair.want)
    if got.shape != want.shape:
        return Row(name, float("inf"), pair.bound, f"shape {got.shape}, golden {want.shape}")
    return Row(name, relative_error(got, want), pair.bound)


def check_file(path: str | Path) -> list[Row]:
    """Check one golden file of any known kind.

    Raises:
      GoldenError: the file is unreadable or incomplete, its kind is unknown, or an array of it was
        not read.
    """
    golden = Golden(path)
    if golden.kind not in KINDS:
        raise GoldenError(
            f"{golden.path}: unknown kind {golden.kind!r}; known kinds: {sorted(KINDS)}"
        )
    check: Callable[[Golden], dict[str, Pair]] = import_module(KINDS[golden.kind]).check
    rows = [_compare(name, pair) for name, pair in check(golden).items()]
    if golden.unread:
        raise GoldenError(
            f"{golden.path}: arrays that kind {golden.kind!r} does not check: {golden.unread}"
        )
    if not rows:
        raise GoldenError(f"{golden.path}: kind {golden.kind!r} compared nothing")
    return rows
