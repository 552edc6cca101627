# SPDX-License-Identifier: Apache-2.0
"""Tells a user's mistakes, which are one sentence, from faults of this library, which show their
place.

A mistake is what this library raises on purpose, by a `raise` of its own, and what ValueError or
OSError says; the place is shown beside a ValueError that another library raised. All other errors
(TypeError, KeyError, AttributeError, ...) were meant by nobody.
"""

import linecache
import sys
import traceback
from pathlib import Path
from types import FrameType

import mmdisco_jax

_ROOT = Path(mmdisco_jax.__file__).resolve().parent
_OURS = (_ROOT, _ROOT.parent / "configs", _ROOT.parent / "data")
_OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"


def message(error: BaseException) -> str:
    """What to print of an error that ends a command: a sentence, or a traceback with one."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY in str(error):
        first = str(error).partition("\n")[0] or "no more memory"
        return (
            f"error: out of memory ({first}). Use smaller batches (sample.batch_size; "
            "train.batch_size, or more train.num_microbatches), or more devices (mesh.fsdp)."
        )
    if _is_told(error):
        return f"error: {text}{_foreign(error)}"
    lines = "".join(traceback.format_exception(error))
    return f"{lines}error: {type(error).__name__} {_whose(error)}"


def _is_told(error: BaseException) -> bool:
    """True if the error is a sentence for the user."""
    return isinstance(error, (ValueError, OSError)) or _is_raised_here(error)


def _is_raised_here(error: BaseException) -> bool:
    """True if a `raise` of this library raised it, or code without a known source."""
    frames = _frames(error)
    if not frames:
        return True
    line = linecache.getline(*frames[-1]).lstrip()
    return _is_ours(frames[-1][0]) and (not line or line.startswith("raise"))


def _foreign(error: BaseException) -> str:
    """Place of a ValueError that was not raised here on purpose; else "" """
    if not isinstance(error, ValueError) or _is_raised_here(error):
        return ""
    frames = _frames(error)
    if not _is_ours(frames[-1][0]) and not _is_library(frames[-1][0]):
        return ""  # raised by the user's own code
    inside = next((place for place in reversed(frames) if _is_ours(place[0])), None)
    return f" [from {_short(inside)}; --traceback shows more]" if inside else ""


def _whose(error: BaseException) -> str:
    """Whose fault it is, and where: this library's, or the user's own config or module."""
    frames = _frames(error)
    if isinstance(error, SyntaxError) and error.filename:
        frames.append((error.filename, error.lineno or 0))
    last = next((f for f in reversed(frames) if not _is_library(f[0])), None)
    if last is not None and not _is_ours(last[0]):
        return f"in your own code, {last[0]}:{last[1]}."
    place = f" at {_short(last)}" if last else ""
    return (
        f"is a fault of mmdisco_jax {mmdisco_jax.__version__}{place}, and not yours: please report "
        "it, with the lines above and the command."
    )


def _frames(error: BaseException) -> list[tuple[str, int]]:
    """(file, line) of each call, the outermost first."""
    found = traceback.walk_tb(error.__traceback__)
    return [(_file(frame), line) for frame, line in found]


def _file(frame: FrameType) -> str:
    return frame.f_code.co_filename


def _is_ours(file: str) -> bool:
    return any(Path(file).resolve().is_relative_to(root) for root in _OURS)


def _is_library(file: str) -> bool:
    """True for installed packages, the standard library, and code without a file."""
    parts = Path(file).parts
    installed = {"site-packages", "dist-packages"} & set(parts)
    return bool(installed) or file.startswith(("<", sys.base_prefix))


def _short(place: tuple[str, int]) -> str:
    path = Path(place[0]).resolve()
    root = next((r.parent for r in _OURS if path.is_relative_to(r)), None)
    return f"{path.relative_to(root) if root else path}:{place[1]}"
