# SPDX-License-Identifier: Apache-2.0
"""Config sections to models that others trained: folders in diffusers layout, or Hugging Face ids.

`config.weights` names where they come from. A section of `bases`, `codecs` or `texts` that has a
`folder` is one of their components, and its architecture is read from the component's config.json.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import nnx
from jax.sharding import Mesh
from tqdm import tqdm

from mmdisco_jax import parallel
from mmdisco_jax.base_models import unet_2d_spec, unet_motion
from mmdisco_jax.base_models.unet_motion import merge_adapter
from mmdisco_jax.build.ports import PORTS, Port, port_of
from mmdisco_jax.build.sections import Config, schedules
from mmdisco_jax.porting.folders import open_component, read_json
from mmdisco_jax.porting.hub import locate
from mmdisco_jax.porting.lazy import LazyTensors, open_files
from mmdisco_jax.porting.place import as_torch, place
from mmdisco_jax.process import SCHEDULES

# The file of a component whose weights `convert` has written in this project's names and layout.
OURS = "weights.safetensors"
_CONFIG, _SCHEDULER = "config.json", "scheduler/scheduler_config.json"
_PRESETS = {**unet_2d_spec.PRESETS, **unet_motion.PRESETS}


class Part(NamedTuple):
    """A component: its config.json, its port (None for a motion adapter), and its tensors by the
    port's PyTorch names, not read yet.
    """

    config: Mapping[str, Any]
    port: Port | None
    tensors: LazyTensors


def is_pretrained(section: Config) -> bool:
    return "folder" in section


def root(config: Config, source: str, *models: str, others: tuple[str, ...] = ()) -> Path:
    """The local folder of `config.weights[source]`, in which these components are complete.

    FileNotFoundError names what is missing, and where to put it.
    """
    text = config.weights[source]
    if models and all((Path(text) / name / OURS).is_file() for name in models):
        return Path(text)
    return locate(text, models=models, others=others, setting=f"config.weights.{source}")


def require_sources(config: Config) -> None:
    """Sees to it that all components the config reads are on this machine.

    What is not is downloaded, once for each source; what cannot be is one error.

    Raises:
      FileNotFoundError: each missing file, and where to put it.
    """
    wanted: dict[str, tuple[list[str], list[str]]] = {}

    def want(source: str, *models: str, others: tuple[str, ...] = ()) -> None:
        found = wanted.setdefault(source, ([], []))
        found[0].extend(models)
        found[1].extend(others)

    for section in config.texts.values():
        want(section.weights, section.folder, others=(section.tokenizer,))
    for section in config.codecs.values():
        if is_pretrained(section):
            want(section.weights, *(section[k] for k in ("folder", "vocoder") if k in section))
    for name, section in config.bases.items():
        if is_pretrained(section):
            want(name, section.folder)
            if section.adapter and not _moves(config, name):
                want(section.adapter, "")
    lacking = []
    for source, (models, others) in wanted.items():
        try:
            root(config, source, *models, others=tuple(others))
        except FileNotFoundError as error:
            lacking.append(str(error))
    if lacking:
        raise FileNotFoundError("\n".join(lacking))


def _moves(config: Config, name: str) -> bool:
    """Whether the base model is here and is a motion U-Net as it is, without its adapter."""
    path = Path(config.weights[name]) / config.bases[name].folder / _CONFIG
    return path.is_file() and read_json(path).get("_class_name") == "UNetMotionModel"


def part(config: Config, source: str, folder: str, kind: str = "") -> Part:
    """A component of `config.weights[source]`, which is downloaded if need be.

    kind: its class, for configs that do not name it.
    """
    return read_part(root(config, source, folder), folder, kind)


def read_part(top: Path, folder: str, kind: str = "") -> Part:
    """The component in `top / folder`, whose weights are in diffusers' layout or in ours."""
    ours = top / folder / OURS
    if ours.is_file():
        told = read_json(top / folder / _CONFIG)
        port = _port(told, kind, f"{top / folder}")
        abstract = port.skeleton(port.spec_of(told))[1]
        return Part(told, port, as_torch(abstract, open_files([ours]), overrides=port.overrides))
    found = open_component(top, folder)
    if found.config.get("_class_name") == "MotionAdapter":
        return Part(found.config, None, found.tensors)
    port = _port(found.config, kind, f"{top / folder}")
    return Part(found.config, port, port.named(found.tensors))


def _port(told: Mapping[str, Any], kind: str, where: str) -> Port:
    named = told.get("_class_name") or (told.get("architectures") or [kind])[0]
    return port_of(kind if named not in PORTS and kind else named, where)


def filled(found: Part, abstract: nnx.State, **options: Any) -> nnx.State:
    """The component's parameters; options are those of `porting.place`."""
    overrides = found.port.overrides if found.port else None
    return place(abstract, found.tensors, overrides=overrides, **options)


class Base(NamedTuple):
    """A base model as its files, or its preset, describe it. tensors: None for a preset."""

    port: Port
    spec: Any
    tensors: LazyTensors | None


def pretrained_base(config: Config, name: str) -> Base:
    """The base model `name`; with `adapter`, a 2-D U-Net and the motion adapter of that source.

    Without a source in `config.weights` its `preset` tells the architecture: what a model of the
    released size costs can be asked without its files.

    Raises:
      ValueError: a network that is not ported.
      FileNotFoundError: files are missing.
    """
    section = config.bases[name]
    options = {"compute_dtype": section.compute_dtype, "remat": section.remat}
    if not config.weights[name]:
        return _preset(section.preset, options)
    found = part(config, name, section.folder)
    port = port_of(found.config.get("_class_name"), f"config.weights.{name}")
    spec, tensors = port.spec_of(found.config, **options), found.tensors
    if section.adapter and port is PORTS["UNet2DConditionModel"]:
        adapter = part(config, section.adapter, "")
        port = PORTS["UNetMotionModel"]
        spec = unet_motion.spec_with_adapter(spec, adapter.config)
        tensors = LazyTensors(merge_adapter(tensors.entries, adapter.tensors.entries))
    return Base(port, spec, tensors)


def _preset(preset: str, options: dict[str, Any]) -> Base:
    if preset not in _PRESETS:
        raise ValueError(f"unknown preset {preset!r}: choose one of {', '.join(_PRESETS)}.")
    spec: Any = _PRESETS[preset]
    if isinstance(spec, unet_motion.UNetMotionSpec):
        picture = dataclasses.replace(spec.picture, **options)
        return Base(PORTS["UNetMotionModel"], dataclasses.replace(spec, picture=picture), None)
    return Base(PORTS["UNet2DConditionModel"], dataclasses.replace(spec, **options), None)


def load_base(
    config: Config, name: str, mesh: Mesh | None = None
) -> tuple[nnx.GraphDef, nnx.State]:
    """The base model and its parameters, in the section's `param_dtype`, cut over a mesh.

    Raises:
      ValueError: no source in `config.weights`, tensors that are not exactly the network's, or a
        source that was trained with another noise schedule (`check_scheduler`).
    """
    base = pretrained_base(config, name)
    if base.tensors is None:
        raise ValueError(f"config.weights.{name} is empty: name a folder or a Hugging Face id.")
    check_scheduler(config, name)
    graphdef, abstract = base.port.skeleton(base.spec)
    dtype = config.bases[name].param_dtype
    shardings = parallel.tree_shardings(abstract, mesh) if mesh else None
    return graphdef, place(abstract, base.tensors, shardings=shardings, dtype=dtype)


def check_scheduler(config: Config, name: str) -> None:
    """ValueError if the source was trained with another noise schedule than the config's.

    `config.sample.force_schedule` allows it.
    """
    path = root(config, name, config.bases[name].folder) / _SCHEDULER
    if config.sample.force_schedule or not path.is_file():
        return
    told = read_json(path)
    kind = told.get("prediction_type", "epsilon")
    if kind != "epsilon":
        raise ValueError(f"{path}: prediction_type is {kind!r}, but must be 'epsilon'.")
    shape, keys = told.get("beta_schedule"), ("num_train_timesteps", "beta_start", "beta_end")
    if shape in SCHEDULES.names():
        theirs: Any = SCHEDULES.get(shape)(*(told[key] for key in keys))
        if theirs.digest() == schedules(config)[name].digest():
            return
    raise ValueError(
        f"{path} says {shape} {[told.get(key) for key in keys]}, but config.schedules.{name} is "
        f"{config.schedules[name].to_dict()}: each level would stand for another amount of noise. "
        "Make them equal; config.sample.force_schedule=True goes on."
    )


def digest(config: Config, name: str) -> str:
    """SHA-256 of a base model's tensors, names and all: which weights these are."""
    tensors = pretrained_base(config, name).tensors or LazyTensors({})
    sha = hashlib.sha256()
    for key in tqdm(sorted(tensors), desc=f"weights of {name}", unit="tensor", leave=False):
        array = np.ascontiguousarray(tensors[key])
        sha.update(f"{key} {array.dtype} {array.shape}".encode())
        sha.update(array.reshape(-1).view(np.uint8).data)
    return sha.hexdigest()
