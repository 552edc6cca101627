# SPDX-License-Identifier: Apache-2.0
"""Typed settings of an experiment, read from an ml_collections config.

This module is the only reader of a ConfigDict. A config file states decisions; every other setting
has its default here, and `complete` writes those into the config, so that `--config.a.b=value` can
change any of them and the resolved config shows all.
"""

import dataclasses
import difflib
import functools
import importlib.util
import inspect
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mmdisco_jax.base_models import BASE_MODELS
from mmdisco_jax.base_models.api import Base, made
from mmdisco_jax.base_models.super_resolution import SuperResolutionBase
from mmdisco_jax.resources import find_config, find_weights
from mmdisco_jax.samplers import SAMPLERS
from mmdisco_jax.sections import (
    Bench,
    Convert,
    Data,
    Discriminator,
    Evaluation,
    Fakes,
    Guidance,
    Mesh,
    Sampling,
    Toy,
    Training,
)
from mmdisco_jax.settings import defaults_of, read_settings
from mmdisco_jax.types import ClipFormat


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Experiment:
    """Everything that decides an experiment.

    Attributes:
      seed: of parameters, batches and noise in training.
      clip: format of the clips.
      bases: recipes of the frozen base models, by name.
      discriminator: None for experiments without one.
      super_resolution: a model that enlarges samples, or None.
      weights: weight files by name: each base model, "discriminator", "fakes", and what recipes
        name besides (`Base.SOURCES`).
      sample, variants: sampling, and each variant of it.
      resolved: the completed config as plain JSON, for records.
      variant_records: the settings of each variant as plain JSON.
    """

    seed: int = 0
    data: Data = dataclasses.field(default_factory=Data)
    clip: ClipFormat = dataclasses.field(default_factory=ClipFormat)
    bases: Mapping[str, Base] = dataclasses.field(default_factory=dict)
    discriminator: Discriminator | None = None
    super_resolution: SuperResolutionBase | None = None
    guidance: Guidance = dataclasses.field(default_factory=Guidance)
    weights: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fakes: Fakes = dataclasses.field(default_factory=Fakes)
    sample: Sampling = dataclasses.field(default_factory=Sampling)
    variants: Mapping[str, Sampling] = dataclasses.field(default_factory=dict)
    evaluate: Evaluation = dataclasses.field(default_factory=Evaluation)
    bench: Bench = dataclasses.field(default_factory=Bench)
    train: Training = dataclasses.field(default_factory=Training)
    mesh: Mesh = dataclasses.field(default_factory=Mesh)
    convert: Convert = dataclasses.field(default_factory=Convert)
    toy: Toy | None = None
    resolved: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    variant_records: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_config(cls, config: ConfigDict | Mapping[str, Any]) -> "Experiment":
        """Reads a config, completed or not.

        Raises:
          ValueError: unknown keys, values of a wrong type, or settings that a component refuses;
            the message names the key.
        """
        full = complete(config)
        resolved = json.loads(full.to_json_best_effort())
        plain = full.to_dict()
        sections = {
            name: read_settings(kind, plain.pop(name), f"config.{name}")
            for name, kind in _SECTIONS.items()
        }
        sample = plain.pop("sample")
        changes = sample.pop("variants")
        weights = _weights(plain.pop("weights"), plain["bases"])
        small, toy, head = (plain.pop(n) for n in ("super_resolution", "toy", "discriminator"))
        return cls(
            seed=plain.pop("seed"),
            bases=_bases(plain.pop("bases"), sections["clip"], weights),
            discriminator=_discriminator(head),
            super_resolution=_super_resolution(small),
            toy=read_settings(Toy, toy, "config.toy") if toy else None,
            weights=weights,
            sample=_sampling(sample, "config.sample"),
            variants={
                name: _sampling(_merged(sample, change), f"config.sample.variants.{name}")
                for name, change in changes.items()
            },
            resolved=resolved,
            variant_records={
                name: json.loads(json.dumps(_merged(sample, change)))
                for name, change in changes.items()
            },
            **sections,
        )

    def variant(self, name: str) -> Sampling:
        """Settings of one of `sample.variants`; ValueError for an unknown one."""
        if name not in self.variants:
            raise ValueError(f"unknown variant {name!r}: choose one of {', '.join(self.variants)}.")
        return self.variants[name]

    @functools.cached_property
    def variant_names(self) -> list[str]:
        """Variants to sample, the unguided ones first."""
        return sorted(self.variants, key=lambda name: (self.variants[name].is_guided, name))

    @property
    def is_joint(self) -> bool:
        """True if one base model makes several modalities together."""
        return any(len(base.modalities) > 1 for base in self.bases.values())


_SECTIONS: dict[str, Any] = {
    "data": Data,
    "clip": ClipFormat,
    "guidance": Guidance,
    "fakes": Fakes,
    "evaluate": Evaluation,
    "bench": Bench,
    "train": Training,
    "mesh": Mesh,
    "convert": Convert,
}
# Sections that are empty where an experiment has no such part.
_OPTIONAL: dict[str, Any] = {"super_resolution": SuperResolutionBase, "toy": Toy}
_OPEN = ("bases", "discriminator", "weights")


def load_config(
    text: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None
) -> ConfigDict:
    """The completed config of a file, or of a shipped config by its name.

    Args:
      text: "configs/bounce.py", "bounce" or a path of your own, each with ":arguments" if it takes
        any.
      overrides: {"dotted.key": value}.

    Raises:
      ValueError: no such config, arguments that it does not take, or keys that it lacks.
    """
    path, argument = find_config(str(text))
    spec = importlib.util.spec_from_file_location(f"mmdisco_config_{Path(path).stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file: a config defines get_config() in one.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    given = [] if argument is None else [argument]
    if given and not inspect.signature(module.get_config).parameters:
        raise ValueError(f"{path} takes no arguments: leave out the colon and {argument!r}.")
    config = complete(module.get_config(*given))
    known = config.to_dict()
    for key, value in (overrides or {}).items():
        section, *rest = key.split(".")
        here: Any = known
        for name in (section, *rest):
            if not isinstance(here, Mapping) or name not in here:
                raise ValueError(f"unknown config key {key!r}: {path} has none of that name.")
            here = here[name]
        try:
            config.update_from_flattened_dict({key: value})
        except TypeError as error:
            raise ValueError(f"config.{key} cannot be {value!r}: {error}.") from error
    return config


def complete(config: ConfigDict | Mapping[str, Any]) -> ConfigDict:
    """The config with every setting that it leaves to its default, locked.

    Raises:
      ValueError: a section that no experiment has.
    """
    given = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    known = ["seed", "sample", *_SECTIONS, *_OPTIONAL, *_OPEN]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(
            f"unknown config section {unknown}: choose from {', '.join(sorted(known))}."
        )
    full: dict[str, Any] = {"seed": given.get("seed", 0)}
    for name, kind in _SECTIONS.items():
        full[name] = _merged(defaults_of(kind), given.get(name) or {})
    for name, kind in _OPTIONAL.items():
        some = given.get(name) or {}
        full[name] = _merged(defaults_of(kind), some) if some else {}
    for name in _OPEN:
        full[name] = given.get(name) or {}
    full["bases"] = {
        name: _merged(_base_defaults(section), section) for name, section in full["bases"].items()
    }
    modalities = _modalities(full["bases"])
    sample = _merged(defaults_of(Sampling), given.get("sample") or {})
    for key, value in (("scales", 0.0), ("text_scales", 1.0)):
        sample[key] = dict.fromkeys(modalities, value) | dict(sample[key])
    sample["samplers"] = {
        m: _merged(_stepper_defaults(s), s) for m, s in sample["samplers"].items()
    }
    sample.setdefault("variants", {})
    full["sample"] = sample
    full["weights"] = {"discriminator": "", "fakes": ""} | dict(full["weights"])
    for name in full["bases"]:
        full["weights"].setdefault(name, "")
    made = ConfigDict(full)
    made.lock()
    return made


def _base_defaults(section: Mapping[str, Any]) -> dict[str, Any]:
    recipe = BASE_MODELS.get(section.get("name", ""))
    skipped = {"name", "clip", "weights", *getattr(recipe, "SOURCES", ())}
    return {k: v for k, v in defaults_of(recipe).items() if k not in skipped}


def _stepper_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    stepper = SAMPLERS.get(settings.get("name", ""))
    return defaults_of(stepper) if dataclasses.is_dataclass(stepper) else {}


def _modalities(bases: Mapping[str, Any]) -> list[str]:
    """Names of the modalities, by the sections of the base models."""
    names: list[str] = []
    for name, section in bases.items():
        codec = section.get("codec")
        joint = isinstance(codec, Mapping) and "name" not in codec
        names += sorted(codec) if joint else [name]  # pyright: ignore
    return names


def _merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `change`, section by section.

    A section of `change` that names a component replaces that of `base`, for another component has
    settings of its own.
    """
    out = dict(base)
    for key, value in change.items():
        before = out.get(key)
        renamed = isinstance(value, Mapping) and "name" in value
        if isinstance(before, Mapping) and isinstance(value, Mapping) and not renamed:
            out[key] = _merged(before, value)
        else:
            out[key] = dict(value) if isinstance(value, Mapping) else value
    return out


def _weights(section: Mapping[str, str], bases: Mapping[str, Any]) -> dict[str, str]:
    known = ["discriminator", "fakes", *bases]
    for base in bases.values():
        known += getattr(BASE_MODELS.get(base["name"]), "SOURCES", ())
    for name in section:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(known)}."
            raise ValueError(f"unknown setting config.weights.{name}: {hint}")
    return {name: find_weights(path) for name, path in section.items()}


def _bases(
    sections: Mapping[str, Any], clip: ClipFormat, weights: Mapping[str, str]
) -> dict[str, Base]:
    bases = {}
    for name, section in sections.items():
        recipe = BASE_MODELS.get(section["name"])
        sources = {k: weights.get(k, "") for k in getattr(recipe, "SOURCES", ())}
        fields = {**section, "name": name}
        bases[name] = _made_base(recipe, fields, section["name"], clip, weights[name], sources)
    return bases


def _made_base(
    recipe: Any,
    fields: dict[str, Any],
    kind: str,
    clip: ClipFormat,
    weights: str,
    sources: Mapping[str, str],
) -> Base:
    try:
        return recipe(**fields, clip=clip, weights=weights, **sources)
    except TypeError as error:
        raise ValueError(f"config of base model {kind!r} ({fields['name']}): {error}.") from error


def _discriminator(section: Mapping[str, Any]) -> Discriminator | None:
    if not section:
        return None
    options = dict(section)
    if "name" not in options:
        raise ValueError("config.discriminator has no name: set one, such as 'official'.")
    return Discriminator(name=options.pop("name"), options=options)


def _super_resolution(section: Mapping[str, Any]) -> SuperResolutionBase | None:
    if not section:
        return None
    return read_settings(SuperResolutionBase, section, "config.super_resolution")


def _sampling(section: Mapping[str, Any], where: str) -> Sampling:
    fields = dict(section)
    steppers = {m: made(SAMPLERS, s) for m, s in fields.pop("samplers").items()}
    settings = read_settings(Sampling, fields, where)
    return dataclasses.replace(settings, samplers=steppers)
