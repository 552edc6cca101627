# SPDX-License-Identifier: Apache-2.0
"""Files shipped with the package (configs, weights), and the folder of the user's caches.

A checkout keeps `configs/` beside the package and a wheel carries it inside; both are read here and
nowhere else, so that `mmdisco sample --config=bounce_demo` works in any folder.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "MMDISCO_CACHE_DIR"
_PACKAGE = Path(__file__).resolve().parent
_WEIGHTS = "mmdisco_jax/weights/"


def config_dir() -> Path:
    """The folder of the shipped configs: inside the package, or beside it in a checkout."""
    inside = _PACKAGE / "configs"
    return inside if inside.is_dir() else _PACKAGE.parent / "configs"


def config_names() -> list[str]:
    """Names of the shipped configs, sorted: `bounce` for `configs/bounce.py`."""
    return sorted(path.stem for path in config_dir().glob("*.py") if path.stem != "__init__")


def find_config(text: str) -> tuple[str, str | None]:
    """Splits `--config=PATH[:argument]` into a file that exists and the argument given to it.

    A path is looked up as given, then as the name of a shipped config: `bounce`, `bounce.py` and
    `configs/bounce.py` name one from any folder. Paths and arguments may hold any character. A path
    ends at the first `.py:` before which there is a config, a bare name at its first `:`.

    Args:
      text: a path ending in `.py`, or the name of a shipped config; either with `:argument`.

    Returns:
      (path, argument): the argument is None where there is none, and "" after a final `:`.

    Raises:
      ValueError: no such file, and no shipped config of that name; lists the shipped ones.
    """
    for path, argument in _splits(text):
        given = Path(path).expanduser()
        if path.endswith(".py") and given.is_file():
            return str(given), argument
        name = path.removeprefix("./").removeprefix("configs/").removesuffix(".py")
        if name in config_names():
            return str(config_dir() / f"{name}.py"), argument
    raise ValueError(
        f"there is no config {text!r}: give the path of a .py file, or the name of a shipped "
        f"config ({', '.join(config_names())}); an argument follows after a colon."
    )


def _splits(text: str) -> Iterator[tuple[str, str | None]]:
    """The ways to read `text` as a path and an argument, the likeliest first."""
    end = text.find(".py:")
    while end >= 0:
        yield text[: end + 3], text[end + 4 :]
        end = text.find(".py:", end + 1)
    yield text, None
    name, colon, argument = text.partition(":")
    if colon:
        yield name, argument


def find_weights(text: str) -> str:
    """The path of a weights file: as given where it exists, else the one shipped under that name.

    Configs name the shipped weights as `mmdisco_jax/weights/NAME.safetensors`, which is a path in a
    checkout only. Any other text is returned unchanged: whoever reads it says what is wrong.
    """
    if text.startswith(_WEIGHTS) and not Path(text).exists():
        shipped = _PACKAGE / "weights" / text.removeprefix(_WEIGHTS)
        if shipped.exists():
            return str(shipped)
    return text


def cache_dir() -> Path:
    """The user's folder for what can be made again: compiled programs and prepared datasets.

    `MMDISCO_CACHE_DIR` where it is set, else the operating system's cache folder, such as
    `~/.cache/mmdisco_jax` on Linux (or below XDG_CACHE_HOME). It is not made here.
    """
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given).expanduser().absolute()
    return Path(platformdirs.user_cache_dir("mmdisco_jax", appauthor=False))
