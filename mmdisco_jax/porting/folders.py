# SPDX-License-Identifier: Apache-2.0
"""Model folders in the layout of diffusers and transformers: a config.json beside weight files.

The folder of a pipeline holds one such folder for each component. Weights are one file, or several
with an index. Safetensors are preferred to PyTorch files; a variant such as "fp16" is used only if
it is named.
"""

import dataclasses
import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdisco_jax.porting.lazy import LazyTensors, open_files

CONFIG = "config.json"
_STEMS = {  # suffix -> file names without it, of diffusers and of transformers
    "safetensors": ("diffusion_pytorch_model", "model"),
    "bin": ("diffusion_pytorch_model", "pytorch_model"),
}
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.(safetensors|bin)")
_MAX_JSON_BYTES = 64 * 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Component:
    """One model of a folder: the content of its config.json, and its tensors, not read yet."""

    config: Mapping[str, Any]
    tensors: LazyTensors


def open_component(root: str | Path, name: str = "", *, variant: str | None = None) -> Component:
    """Opens the model in the subfolder `name` of `root`, or in `root` itself if `name` is "".

    Args:
      variant: a variant such as "fp16"; None for the files without one.

    Raises:
      FileNotFoundError: files are missing; the message names all of them.
      ValueError: a damaged config or index, or an index that points outside its folder.
    """
    folder = Path(root) / checked_component(name)
    lacking = missing_files(root, [name], variant=variant)
    if lacking:
        raise FileNotFoundError(f"{root}: lacks {', '.join(lacking)}")
    chosen = weight_file([path.name for path in folder.iterdir()], variant)
    paths = [folder / file for file in shard_names(folder, str(chosen))]
    return Component(config=read_json(folder / CONFIG), tensors=open_files(paths))


def missing_files(
    root: str | Path | None,
    models: Sequence[str],
    *,
    others: Sequence[str] = (),
    variant: str | None = None,
) -> list[str]:
    """Lists the files that the folder of a pipeline lacks, as relative paths.

    Args:
      root: the folder; None lists everything that would be needed.
      models: components with a config.json and weights; "" is the folder itself.
      others: components without weights (tokenizers, schedulers), for which any file is enough.
      variant: as for `open_component`.
    """
    lacking = []
    for name in models:
        folder = None if root is None else Path(root) / checked_component(name)
        names = _file_names(folder)
        lacking += [_joined(name, file) for file in (CONFIG,) if file not in names]
        chosen = weight_file(names, variant)
        if chosen is None:
            lacking.append(_joined(name, _wanted_weights(names, variant)))
        elif folder is not None:
            parts = shard_names(folder, chosen)
            lacking += [_joined(name, part) for part in parts if part not in names]
    for name in others:
        if root is None or not _file_names(Path(root) / checked_component(name)):
            lacking.append(_joined(name, "*"))
    return lacking


def weight_file(names: Collection[str], variant: str | None) -> str | None:
    """Picks the weight file or the index of a model from the file names in its folder."""
    part = f".{variant}" if variant else ""
    for suffix, stems in _STEMS.items():
        for stem in stems:
            # Old and new writers put the variant before or after "index".
            index = f"{stem}.{suffix}.index{part}.json", f"{stem}{part}.{suffix}.index.json"
            for name in (f"{stem}{part}.{suffix}", *index):
                if name in names:
                    return name
    return None


def shard_names(folder: Path, weights: str) -> list[str]:
    """Lists the weight files of a model: `weights` itself, or the shards that an index names.

    Raises:
      ValueError: a damaged index, or an index with names that are not plain weight file names.
    """
    if not weights.endswith(".json"):
        return [weights]
    path = folder / weights
    weight_map = read_json(path).get("weight_map")
    names = list(weight_map.values()) if isinstance(weight_map, dict) else [weight_map]
    odd = [name for name in names if not _is_plain(name)]
    if odd or not names:
        raise ValueError(
            f"{path}: names {odd[:1]} under weight_map; it must map each tensor to the plain name "
            "of a .safetensors or .bin file beside it. Get the file again."
        )
    return sorted({str(name) for name in names})


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON file that holds an object.

    Raises:
      FileNotFoundError: no such file.
      ValueError: the file is too large, damaged, or holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise ValueError(f"{path}: has {path.stat().st_size} bytes, which no config has")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error}). Get the file again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds {type(content).__name__}, not an object of names")
    return content


def checked_component(name: str) -> str:
    """Returns `name` if it is empty or a plain folder name.

    Raises:
      ValueError: the name could lead out of the folder.
    """
    if name and not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", name):
        raise ValueError(f"a component is called {name!r}; it must be a plain folder name.")
    return name


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and bool(_PLAIN_NAME.fullmatch(name))


def _file_names(folder: Path | None) -> list[str]:
    if folder is None or not folder.is_dir():
        return []
    return [path.name for path in folder.iterdir() if path.is_file()]


def _joined(component: str, file: str) -> str:
    return f"{component}/{file}" if component else file


def _wanted_weights(names: Collection[str], variant: str | None) -> str:
    part = f".{variant}" if variant else ""
    wanted = " or ".join(
        f"{stem}{part}.{suffix}" for suffix, stems in _STEMS.items() for stem in stems
    )
    found = sorted(name for name in names if name.split(".")[-1] in _STEMS)
    return f"[{wanted}]" + (f" (there are {found[:4]}: another variant?)" if found else "")
