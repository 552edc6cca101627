# SPDX-License-Identifier: Apache-2.0
"""`convert`: official PyTorch weight files to this project's, and back."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from mmdisco_jax.base_models import mm_diffusion_spec, super_resolution
from mmdisco_jax.base_models.mm_diffusion_unet import MultimodalUNet
from mmdisco_jax.discriminator import official
from mmdisco_jax.io import digest
from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.porting.files import TORCH_SUFFIXES, read_tensors, write_tensors
from mmdisco_jax.porting.load import Overrides, from_torch, strip_prefix, to_torch
from mmdisco_jax.porting.weights import load_weights, save_weights
from mmdisco_jax.sections import Convert
from mmdisco_jax.system import System
from mmdisco_jax.tasks.convert_pipeline import convert_pipeline

OURS = ".safetensors"
FOLDER = "diffusers"  # whole pipelines, see `convert_pipeline`
PARALLEL = "module."  # what PyTorch's data parallel wrapper puts before every name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network whose official weight files can be converted.

    make: builds the module with the official names; never run for its numbers, only for names and
    shapes. inside: attribute under which our models hold it, empty if it is the model. overrides:
    as of `porting.load`.
    """

    make: Callable[[], nnx.Module]
    inside: str = ""
    overrides: Overrides | None = None

    @functools.cached_property
    def abstract(self) -> nnx.State:
        """Shapes of the parameters."""
        return nnx.split(nnx.eval_shape(self.make))[1]

    def ours(self, params: nnx.State) -> Any:
        """The parameters as our weight files name them."""
        return {self.inside: params} if self.inside else params


def _discriminator(preset: str) -> Architecture:
    spec = official.PRESETS[preset]
    # OfficialPair, which the registry builds, holds the official network as `network`.
    return Architecture(
        make=lambda: official.OfficialDiscriminator(spec, rngs=param_keys(0)), inside="network"
    )


def _super_resolution(preset: str) -> Architecture:
    spec = super_resolution.PRESETS[preset]
    return Architecture(make=lambda: super_resolution.SuperResolution(spec, rngs=param_keys(0)))


def _coupled(preset: str) -> Architecture:
    spec = mm_diffusion_spec.PRESETS[preset]
    return Architecture(make=lambda: MultimodalUNet(spec, rngs=param_keys(0)))


# One line per network. The official files of one network (data sets, EMA or not) share its line.
ARCHITECTURES = {
    "mm_diffusion_base64": _coupled("base64"),
    "mm_diffusion_sr64to256": _super_resolution("sr64to256"),
    **{f"mmdisco_{preset}": _discriminator(preset) for preset in official.PRESETS},
}


def run(system: System, workdir: Path) -> None:
    """Writes the target file, in the direction that the suffixes name, and prints its size.

    Relative targets lie in `workdir`. Ours to PyTorch to ours, and PyTorch to ours to PyTorch,
    give back every bit.

    Raises:
      ValueError: unknown architecture or suffixes, a target that exists, or tensors that are not
        exactly those of the architecture; all misfits are named.
    """
    settings = system.experiment.convert
    if settings.architecture == FOLDER:
        _required(settings)
        convert_pipeline(settings.source, Path(workdir) / settings.target)
        return
    architecture = _architecture(settings.architecture)
    source, target = _paths(settings, workdir)
    if target.suffix == OURS:
        params = read_official(source, architecture)
        save_weights(target, architecture.ours(params), _metadata(settings.architecture, source))
    else:
        params = load_weights(source, architecture.ours(architecture.abstract))
        params = params[architecture.inside] if architecture.inside else params
        target.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(target, to_torch(params, overrides=architecture.overrides))
    sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(params)]
    print(f"{target}: {len(sizes)} tensors, {sum(sizes):,} parameters, from {source}")


def read_official(source: Path, architecture: Architecture) -> Any:
    """Parameters from an official file, with or without the prefix of data-parallel training."""
    tensors: Mapping[str, np.ndarray] = read_tensors(source)
    if tensors and all(name.startswith(PARALLEL) for name in tensors):
        tensors = strip_prefix(tensors, PARALLEL)
    # Parameters are float32: wider numbers would be rounded without a word.
    wide = [f"{n} ({x.dtype})" for n, x in tensors.items() if not np.can_cast(x.dtype, np.float32)]
    if wide:
        raise ValueError(
            f"{source} has numbers that float32 cannot hold: {', '.join(wide[:8])}. Cast them, or "
            "remove what is no weight (optimizer states are not converted)."
        )
    try:
        return from_torch(architecture.abstract, tensors, overrides=architecture.overrides)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def _architecture(name: str) -> Architecture:
    if name not in ARCHITECTURES:
        raise ValueError(
            f"unknown architecture {name!r}: set config.convert.architecture to one of "
            f"{', '.join(sorted([*ARCHITECTURES, FOLDER]))}."
        )
    return ARCHITECTURES[name]


def _required(settings: Convert) -> None:
    for name in ("source", "target"):
        if not getattr(settings, name):
            raise ValueError(f"config.convert.{name} is empty: name a file or folder.")


def _paths(settings: Convert, workdir: Path) -> tuple[Path, Path]:
    _required(settings)
    source, target = Path(settings.source), Path(workdir) / settings.target
    ways = {(OURS, torch) for torch in TORCH_SUFFIXES} | {(torch, OURS) for torch in TORCH_SUFFIXES}
    if (source.suffix, target.suffix) not in ways:
        raise ValueError(
            f"cannot convert {source.name} to {target.name}: one of them must end in {OURS}, the "
            f"other in {', '.join(TORCH_SUFFIXES)}."
        )
    if target.exists():
        raise ValueError(f"{target} exists: remove it, or choose another target.")
    return source, target


def _metadata(architecture: str, source: Path) -> dict[str, str]:
    return {
        "architecture": architecture,
        "source": source.name,
        "source_sha256": digest(source),
    }
