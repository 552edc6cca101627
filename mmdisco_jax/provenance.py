# SPDX-License-Identifier: Apache-2.0
"""Provenance records: what a result was made with, and how that differs from what is here now.

A record is JSON. A file or folder of weights, data or latents is an entry {"path", "sha256"} in it,
which is compared by its contents: files may be moved. A record is made when a run starts, kept with
what the run makes, and compared before any of that is reused, resumed, extended or measured.
`tasks.records` makes the records of each mode.
"""

import functools
import json
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax

import mmdisco_jax
from mmdisco_jax.io import digest

Record = dict[str, Any]
_SHOWN = 12  # digits of a digest
# Says which code made a result, and is no reason to refuse it.
_CODE = ("version", "commit")
_ABSENT = "absent"
_PLACES = ("weights.", "variants.", "levels.")  # of entries whose own name says enough


def code_version() -> Record:
    """Version of the package, and commit of its checkout: "unknown" outside one.

    The commit ends in "-dirty" if files differ from it.
    """
    return {"version": mmdisco_jax.__version__, "commit": _commit()}


def entry(path: Any, sha256: str) -> Record:
    """Entry of a file or folder whose contents have this SHA-256."""
    return {"path": str(path), "sha256": sha256}


def file_entry(path: Any) -> Record:
    """Entry of a file; FileNotFoundError if there is none."""
    return entry(path, digest(path))


def as_json(record: Mapping[str, Any]) -> Record:
    """The record as it is once written and read again."""
    return json.loads(json.dumps(record))


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], *, ignored: Collection[str] = ()
) -> list[str]:
    """What differs between two records, one line each; [] if the same things made both.

    Args:
      before, now: records, or parts of them.
      ignored: dotted names that may differ; each stands for everything below it too. The version
        of the code may always differ.
    """
    old, new = _flat(as_json(before)), _flat(as_json(now))
    free = (*_CODE, *ignored)
    return [
        f"{name} was {_shown(old.get(name, _ABSENT))}, now {_shown(new.get(name, _ABSENT))}"
        for name in sorted(old.keys() | new.keys())
        if _content(old.get(name, _ABSENT)) != _content(new.get(name, _ABSENT))
        and not any(name == part or name.startswith(f"{part}.") for part in free)
    ]


def announce(record: Mapping[str, Any]) -> None:
    """Names the files that a run uses, with the first digits of their SHA-256, on stderr."""
    if jax.process_index():
        return
    named: dict[str, str] = {}
    for name, value in _flat(dict(record)).items():
        if _is_entry(value):  # what several variants share is named once
            short = name.rpartition(".")[2] if name.startswith(_PLACES) else name
            named.setdefault(_shown(value), short)
    for shown, name in named.items():
        print(f"using {name}: {shown}", file=sys.stderr)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted name -> leaf; an entry is one leaf."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value and not _is_entry(value):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _is_entry(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) == {"path", "sha256"}


def _content(value: Any) -> Any:
    return value["sha256"] if _is_entry(value) else value


def _shown(value: Any) -> str:
    if _is_entry(value):
        return f"{value['path']} [sha256 {value['sha256'][:_SHOWN]}]"
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


@functools.cache
def _commit() -> str:
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return "unknown"
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
