# SPDX-License-Identifier: Apache-2.0
"""Manifest of a folder: sizes and hashes of its files, to detect damage before they are used."""

import hashlib
import json
import os
from collections.abc import Collection
from pathlib import Path

NAME = "manifest.json"


def write_manifest(directory: Path, *, ignored: Collection[str] = ()) -> None:
    """Writes `manifest.json` for all files below `directory`, after flushing them to disk.

    Args:
      directory: a folder whose files are complete.
      ignored: names of files that may still change.

    Raises:
      OSError: a file cannot be read, or the disk is full.
    """
    files = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.name not in {NAME, *ignored}:
            with path.open("rb") as file:
                os.fsync(file.fileno())  # a rename must not reach the disk before its contents
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = path.stat().st_size
            files[path.relative_to(directory).as_posix()] = {"bytes": size, "sha256": digest}
    with (directory / NAME).open("w") as file:
        json.dump({"files": files}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def damage(directory: Path) -> list[str]:
    """Lists what is wrong with the files of the manifest, one line each; [] if all are intact."""
    try:
        files = json.loads((directory / NAME).read_text())["files"]
        entries = [(name, entry["bytes"], entry["sha256"]) for name, entry in files.items()]
    except FileNotFoundError:
        return [f"{NAME} is missing"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return [f"{NAME} is unreadable"]
    return [line for entry in entries if (line := _damage(directory, *entry))]


def _damage(directory: Path, name: str, size: int, digest: str) -> str:
    path = directory / name
    if not path.is_file():
        return f"{name} is missing"
    if path.stat().st_size != size:
        return f"{name} has {path.stat().st_size} bytes instead of {size}"
    with path.open("rb") as file:
        same = hashlib.file_digest(file, "sha256").hexdigest() == digest
    return "" if same else f"{name} has changed since it was written"
