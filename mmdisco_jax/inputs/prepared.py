# SPDX-License-Identifier: Apache-2.0
"""Folder of the prepared dataset that options describe: that one exactly, or an error."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdisco_jax.checks import listed
from mmdisco_jax.datasets import DATASETS
from mmdisco_jax.inputs.sources import find_prepared

_INFO_FILE, _METADATA_FILE = "dataset_info.json", "metadata.json"
# Of the media only the folder's last name is recorded, for it may be moved.
_PLACE = "folder"
# Of media files, for the name of a dataset is made from their sizes and times.
_OTHER_FILES = "other files, or files that have changed since"


class NotPreparedError(FileNotFoundError):
    """Raised when the dataset of a config is not prepared; says what is, and how it differs."""


def prepared_folder(
    name: str, data_dir: Path, options: Mapping[str, Any], *, chosen: str = ""
) -> Path:
    """The folder of the dataset `name` with these options under `data_dir`.

    Args:
      name: of the registry `DATASETS`.
      options: of its builder. The media files that they name decide the folder too, by their names,
        sizes and times.
      chosen: a prepared dataset to use instead, such as one whose media are gone. Its options must
        be these, apart from the place of the media.

    Raises:
      NotPreparedError: there is no such dataset; the message lists those there are.
      ValueError: options that the dataset does not have, or `chosen` was prepared with others.
    """
    builder = DATASETS.get(name)
    if chosen:
        folder = find_prepared(chosen)
        if lines := _other_options(folder, _all_options(builder, options)):
            raise ValueError(
                f"config.data.prepared={chosen!r} was prepared with other options: "
                f"{listed(lines, separator='; ')}. Set config.data.options to them, or prepare the "
                "data with the config's."
            )
        return folder
    try:
        config = builder.config(**options)
    except TypeError as error:
        raise ValueError(f"config.data.options of dataset {name!r}: {error}.") from error
    except (OSError, ValueError) as error:
        raise _not_prepared(builder, name, data_dir, options, f"its media: {error}") from error
    folder = data_dir / builder.name / config.name / str(builder.VERSION)
    if not (folder / _INFO_FILE).is_file():
        reason = f"there is no {folder}"
        raise _not_prepared(builder, name, data_dir, options, reason)
    return folder


def _not_prepared(
    builder: Any, name: str, data_dir: Path, options: Mapping[str, Any], reason: str
) -> NotPreparedError:
    mine = _all_options(builder, options)
    found = sorted(path.parent for path in (data_dir / builder.name).glob(f"*/*/{_INFO_FILE}"))
    found = [path for path in found if not path.name.startswith("incomplete.")]
    lines = []
    for folder in found:
        other = _other_options(folder, mine) or [_OTHER_FILES]
        lines.append(f"\n  {folder} ({listed(other, separator='; ', most=4)})")
    there = f" Prepared under {data_dir}, and not used for it:{''.join(lines)}" if lines else ""
    use = (
        "\nIf one of these is meant, although its media are gone, say so by "
        "--config.data.prepared=FOLDER."
        if lines
        else ""
    )
    return NotPreparedError(
        f"the dataset {name!r} of this config is not prepared ({reason}). Run the mode prepare "
        f"with the same config first.{there}{use}"
    )


def _all_options(builder: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with their defaults, ready for JSON; as they are if the builder refuses them."""
    with contextlib.suppress(TypeError, ValueError, OSError):
        options = dataclasses.asdict(builder.OPTIONS(**options))
    plain = {key: os.fspath(v) if isinstance(v, os.PathLike) else v for key, v in options.items()}
    return json.loads(json.dumps(plain, default=str))


def _other_options(folder: Path, mine: Mapping[str, Any]) -> list[str]:
    """Options that the dataset in `folder` records with other values, one line each."""
    path = folder / _METADATA_FILE
    recorded = json.loads(path.read_text()) if path.is_file() else {}
    return [
        f"{key} {value!r}, the config has {mine[key]!r}"
        for key, value in sorted(recorded.items())
        if key in mine and key != _PLACE and value != mine[key]
    ] + _other_place(recorded, mine)


def _other_place(recorded: Mapping[str, Any], mine: Mapping[str, Any]) -> list[str]:
    if _PLACE not in recorded or _PLACE not in mine:
        return []
    name = Path(mine[_PLACE]).expanduser().resolve().name
    if recorded[_PLACE] == name:
        return []
    return [f"of a folder called {recorded[_PLACE]!r}, the config's is {mine[_PLACE]!r}"]
