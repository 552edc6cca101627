# SPDX-License-Identifier: Apache-2.0
"""`convert` of whole pipelines: folders in diffusers layout to this project's weights, and back."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmdisco_jax.base_models.pipelines import OURS, read_component
from mmdisco_jax.io import replacing_folder
from mmdisco_jax.nn.init import skeleton
from mmdisco_jax.porting.folders import CONFIG, read_json
from mmdisco_jax.porting.hub import locate
from mmdisco_jax.porting.lazy import LazyTensors, as_lazy
from mmdisco_jax.porting.port import PORTS
from mmdisco_jax.porting.save import save_folder
from mmdisco_jax.porting.weights import save_weights

INDEX = "model_index.json"


def convert_pipeline(source: str, target: Path) -> None:
    """Writes every ported component of a pipeline to a new folder, in the other layout.

    In both, a component has a folder with its config.json; its weights are diffusers' files, or
    one `weights.safetensors` with this project's names. Tokenizers and schedulers are copied. What
    is not ported is left out, of the index too, and named. There and back gives every tensor bit by
    bit.

    Raises:
      FileNotFoundError: the source lacks files.
      ValueError: a target that exists, or tensors that are not exactly those of a port.
    """
    if target.exists():
        raise ValueError(f"{target} exists: remove it, or choose another target.")
    top = _located(source)
    kinds = _classes(top)
    ported = {name: kind for name, kind in kinds.items() if kind in PORTS.names()}
    if not ported:
        raise ValueError(
            f"{top}: none of {sorted(kinds.values())} is ported: {', '.join(PORTS.names())}."
        )
    to_ours = not all((top / name / OURS).is_file() for name in ported)
    plain = [name for name in kinds if name not in ported and not _has_weights(top / name)]
    left = sorted(set(kinds) - set(ported) - set(plain))
    with replacing_folder(target) as partial:
        if to_ours:
            _write_ours(top, partial, ported)
        else:
            _write_theirs(top, partial, ported)
        for name in plain:
            shutil.copytree(top / name, partial / name, dirs_exist_ok=True)
        # As diffusers writes a component that a pipeline does without.
        index = read_json(top / INDEX) | {name: [None, None] for name in left}
        (partial / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    note = f"; not ported, left out: {', '.join(left)}" if left else ""
    print(f"{target}: {', '.join(sorted(ported))}, and {', '.join(sorted(plain))}{note}")


def _located(source: str) -> Path:
    if (Path(source) / INDEX).is_file():
        return Path(source)
    folder = locate(source, models=(), setting="config.convert.source")
    if not (folder / INDEX).is_file():
        raise FileNotFoundError(
            f"config.convert.source={source!r}: has no {INDEX}: name the folder of a pipeline, as "
            "diffusers' save_pretrained writes it."
        )
    return folder


def _classes(top: Path) -> dict[str, str]:
    """Class of each component that is there."""
    index = read_json(top / INDEX)
    named = {k: v[1] for k, v in index.items() if isinstance(v, list) and len(v) == 2 and v[1]}
    return {name: kind for name, kind in named.items() if (top / name).is_dir()}


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors")) or any(folder.glob("*.bin"))


def _write_ours(top: Path, target: Path, ported: Mapping[str, str]) -> None:
    for name, kind in tqdm(ported.items(), unit="component"):
        found = read_component(top, name, kind)
        params = found.filled(skeleton(PORTS.get(kind).module, found.spec)[1])
        (target / name).mkdir(parents=True)
        save_weights(target / name / OURS, params, {"class": kind, "source": str(top)})
        text = json.dumps(dict(found.config), indent=2, sort_keys=True)
        (target / name / CONFIG).write_text(text + "\n")


def _write_theirs(top: Path, target: Path, ported: Mapping[str, str]) -> None:
    components: dict[str, tuple[Mapping[str, Any], LazyTensors]] = {}
    for name, kind in ported.items():
        found, port = read_component(top, name, kind), PORTS.get(kind)
        buffers = as_lazy(port.buffers(found.spec))
        tensors = LazyTensors(found.tensors.entries | buffers.entries)
        components[name] = found.config, tensors
    save_folder(target, components)
