# SPDX-License-Identifier: Apache-2.0
"""Config sections to models that others trained: folders in diffusers layout, or Hugging Face ids.

`config.weights` names where they come from. A section of `bases`, `codecs` or `texts` that has a
`folder` is one of their components, and its architecture is read from the component's config.json.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import nnx
from tqdm import tqdm

from mmdisco_jax.base_models import unet_2d_spec, unet_motion_spec
from mmdisco_jax.base_models.unet_2d import UNet2D
from mmdisco_jax.base_models.unet_motion import UNetMotion, merge_adapter
from mmdisco_jax.build.sections import Config, schedules
from mmdisco_jax.nn.keys import param_keys
from mmdisco_jax.porting.folders import Component, open_component, read_json
from mmdisco_jax.porting.hub import locate
from mmdisco_jax.porting.lazy import LazyTensors
from mmdisco_jax.porting.place import place
from mmdisco_jax.process import SCHEDULES
from mmdisco_jax.process.schedules import Schedule

_SCHEDULER = "scheduler/scheduler_config.json"
# By the class that a config.json names.
_SPECS = {
    "UNet2DConditionModel": unet_2d_spec.spec_from_config,
    "UNetMotionModel": unet_motion_spec.spec_from_config,
}
_PRESETS = {**unet_2d_spec.PRESETS, **unet_motion_spec.PRESETS}


def is_pretrained(section: Config) -> bool:
    return "folder" in section


def component(config: Config, source: str, folder: str) -> Component:
    """A component of `config.weights[source]`, which is downloaded if need be.

    FileNotFoundError names what is missing, and where to put it.
    """
    return open_component(root(config, source, folder), folder)


def root(config: Config, source: str, *models: str, others: tuple[str, ...] = ()) -> Path:
    """The local folder of `config.weights[source]`, in which these components are complete."""
    setting = f"config.weights.{source}"
    return locate(config.weights[source], models=models, others=others, setting=setting)


class Ported(NamedTuple):
    """A network as its files describe it: what makes it given `rngs`, its graph definition and
    shapes, and its tensors, not read yet."""

    make: Callable[..., nnx.Module]
    graphdef: nnx.GraphDef
    abstract: nnx.State
    tensors: LazyTensors


def ported_base(config: Config, name: str) -> Ported:
    """The base model `name`; with `adapter`, a 2-D U-Net and the motion adapter of that source.

    Without a source in `config.weights` its `preset` tells the architecture, and there are no
    tensors: what a model of the released size costs can be asked without its files.

    Raises:
      ValueError: a network that is not ported, or tensors that are not exactly its own.
      FileNotFoundError: files are missing.
    """
    section = config.bases[name]
    options = {"compute_dtype": section.compute_dtype, "remat": section.remat}
    tensors = LazyTensors({})
    if config.weights[name]:
        part = component(config, name, section.folder)
        spec, tensors = _spec(config, name, part, options), part.tensors
        if section.adapter:
            adapter = component(config, section.adapter, "")
            spec = unet_motion_spec.spec_with_adapter(spec, adapter.config)
            tensors = LazyTensors(merge_adapter(tensors.entries, adapter.tensors.entries))
    else:
        spec = _preset(section.preset, options)
    kind = UNetMotion if isinstance(spec, unet_motion_spec.UNetMotionSpec) else UNet2D
    make = functools.partial(kind, spec)
    graphdef, abstract = nnx.split(nnx.eval_shape(lambda: make(rngs=param_keys(0))))
    return Ported(make, graphdef, abstract, tensors)


def _spec(config: Config, name: str, part: Component, options: dict[str, Any]) -> Any:
    kind = part.config.get("_class_name")
    if kind not in _SPECS:
        raise ValueError(
            f"config.weights.{name}={config.weights[name]!r}: {config.bases[name].folder}/"
            f"config.json is of a {kind!r}; ported are {', '.join(_SPECS)}."
        )
    return _SPECS[kind](part.config, **options)


def _preset(preset: str, options: dict[str, Any]) -> Any:
    if preset not in _PRESETS:
        raise ValueError(f"unknown preset {preset!r}: choose one of {', '.join(_PRESETS)}.")
    spec: Any = _PRESETS[preset]
    if isinstance(spec, unet_motion_spec.UNetMotionSpec):
        return dataclasses.replace(spec, picture=dataclasses.replace(spec.picture, **options))
    return dataclasses.replace(spec, **options)


def load_base(config: Config, name: str, shardings: Any = None) -> tuple[nnx.GraphDef, nnx.State]:
    """The base model and its parameters, in the section's `param_dtype` and these shardings."""
    found = ported_base(config, name)
    check_scheduler(config, name)
    dtype = config.bases[name].param_dtype
    return found.graphdef, place(found.abstract, found.tensors, shardings=shardings, dtype=dtype)


def check_scheduler(config: Config, name: str) -> None:
    """ValueError if the source was trained with another noise schedule than the config's.

    `config.sample.force_schedule` allows it.
    """
    path = root(config, name, config.bases[name].folder) / _SCHEDULER
    if config.sample.force_schedule or not path.is_file():
        return
    told = read_json(path)
    kind = told.get("beta_schedule")
    theirs: Any = None
    if kind in SCHEDULES.names():
        betas = told["num_train_timesteps"], told["beta_start"], told["beta_end"]
        theirs = SCHEDULES.get(kind)(*betas)
    mine: Schedule = schedules(config)[name]
    if told.get("prediction_type", "epsilon") != "epsilon":
        raise ValueError(f"{path}: prediction_type={told['prediction_type']!r}; must be 'epsilon'.")
    if theirs is None or theirs.digest() != mine.digest():
        shown = {k: told.get(k) for k in ("num_train_timesteps", "beta_start", "beta_end")}
        raise ValueError(
            f"{path} says {kind} {shown}, but config.schedules.{name} is "
            f"{config.schedules[name].to_dict()}: each level would stand for another amount of "
            "noise. Make them equal; config.sample.force_schedule=True goes on."
        )


def digest(config: Config, name: str) -> str:
    """SHA-256 of a base model's tensors, names and all: which weights these are."""
    sha = hashlib.sha256()
    tensors = ported_base(config, name).tensors
    for key in tqdm(sorted(tensors), desc=f"reading {name}", unit="tensor", leave=False):
        array = tensors[key]
        sha.update(f"{key} {array.dtype} {array.shape}".encode())
        sha.update(np.ascontiguousarray(array).view(np.uint8).data)
    return sha.hexdigest()


def with_weights(make: Any, part: Component, *, rename: Any = None, **options: Any) -> Any:
    """(graph definition, parameters) of the module that `make` makes, given `rngs`.

    rename: as of `LazyTensors.renamed`; options: of `place`.
    """
    graphdef, abstract = nnx.split(nnx.eval_shape(lambda: make(rngs=param_keys(0))))
    tensors = part.tensors.renamed(rename) if rename else part.tensors
    return graphdef, place(abstract, tensors, **options)
