# SPDX-License-Identifier: Apache-2.0
"""Typed settings of an experiment, read from an ml_collections config.

This module is the only reader of a ConfigDict. A config file states decisions; every other setting
has its default here, and `complete` writes those into the config, so that `--config.a.b=value` can
change any of them and the resolved config shows all.
"""

import dataclasses
import functools
import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mmdisco_jax.base_models import BASE_MODELS
from mmdisco_jax.base_models.api import Base, made
from mmdisco_jax.base_models.super_resolution import SuperResolutionBase
from mmdisco_jax.discriminator.objective import ObjectiveSpec
from mmdisco_jax.guidance.joint import Plan
from mmdisco_jax.resources import cache_dir, find_config, find_weights
from mmdisco_jax.samplers import SAMPLERS
from mmdisco_jax.samplers.api import Stepper
from mmdisco_jax.settings import defaults_of, read_settings
from mmdisco_jax.types import ClipFormat


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """Dataset, and how training reads it.

    name: of the registry `datasets.DATASETS`. dir: folder of prepared data; "" is the user's cache
    folder. options: of the
    dataset's builder. flip: clips that are mirrored, "half", "off", or "official" for all.
    num_workers: processes that read batches ahead, 0 for threads. prepare_workers: processes that
    cut media files. in_memory: whether training keeps all clips in memory. latents: a folder into
    which `prepare` encodes the training clips once, and from which `train` reads them; for codecs
    that cost more than reading, without flips.
    """

    name: str = "bounce"
    dir: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    flip: str = "half"
    num_workers: int = 0
    prepare_workers: int = 2
    in_memory: bool = True
    latents: str = ""

    @property
    def folder(self) -> Path:
        """Folder of prepared data."""
        return Path(self.dir) if self.dir else cache_dir() / "data"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Discriminator:
    """Discriminator: a name of the registry `DISCRIMINATORS`, and the options of its builder."""

    name: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guidance:
    """log_ratio: form of the log-ratio, "logit" or "official"; see `discriminator.log_ratio`."""

    log_ratio: str = "logit"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fakes:
    """Samples of the base models on which a discriminator is trained; num_samples 0 for none.

    first_index: of the samples, so that no fake is ever a sample that is measured. variant: of
    `sample.variants`, unguided.
    """

    num_samples: int = 0
    batch_size: int = 128
    first_index: int = 1_000_000
    variant: str = "independent"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """interval: noise levels (low, high) that are guided, () for all. every: n-th step only."""

    interval: tuple[int, ...] = ()
    every: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Condition:
    """One modality from media files; the other is sampled to it.

    given: the modality, "" for none. media: a file or a folder; sample i takes the first clip of
    file i, beginning anew after the last. weight: 0 for replacement, above for reconstruction
    guidance. on_short: "error", "hold" the last picture, or "skip". on_odd_rate: too low a rate is
    an "error", or "keep" (fill up), or "skip".
    """

    given: str = ""
    media: str = ""
    weight: float = 0.0
    on_short: str = "error"
    on_odd_rate: str = "error"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """Sampling; each entry of `sample.variants` overrides some of it.

    Attributes:
      num_media: clips written as mp4 and wav, from the first.
      samplers: stepper of each modality.
      num_steps: calls of the model.
      grid: "levels" visits whole noise levels; "solver" any levels, as the DPM-Solvers want them,
        down to level 0, or with `to_clean` to the clean signal.
      spacing, offset: of the levels. model_time: of the solver grid, "continuous" or "truncated".
      num_substeps: repeats of each step.
      scales: joint guidance of each modality; 0 leaves the base models alone.
      prompts, negative_prompt, samples_per_prompt, text_scales: of models that read text; 1 is the
        model with the text alone. num_samples counts where there are no prompts.
      discriminator_weights: other than weights.discriminator.
      force_schedule: whether weights may be used that were trained with other noise schedules.
    """

    seed: int = 0
    num_samples: int = 8
    batch_size: int = 8
    num_media: int = 8
    samplers: Mapping[str, Stepper] = dataclasses.field(default_factory=dict)
    num_steps: int = 50
    grid: str = "levels"
    spacing: str = "trailing"
    offset: int = 0
    to_clean: bool = True
    model_time: str = "continuous"
    num_substeps: int = 1
    scales: Mapping[str, float] = dataclasses.field(default_factory=dict)
    prompts: tuple[str, ...] = ()
    negative_prompt: str = ""
    samples_per_prompt: int = 1
    text_scales: Mapping[str, float] = dataclasses.field(default_factory=dict)
    plan: PlanSettings = PlanSettings()
    condition: Condition = Condition()
    discriminator_weights: str = ""
    force_schedule: bool = False

    @property
    def is_guided(self) -> bool:
        """Whether the discriminator takes part."""
        return any(self.scales.values())

    @property
    def guidance_plan(self) -> Plan:
        return Plan(interval=self.plan.interval or None, every=self.plan.every)  # pyright: ignore


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Measures: names of the registry `METRICS`, or "package.module:attribute".

    num_real: test clips, half to compare with, half to be compared. levels: noise levels at which
    the discriminator itself is measured, on `level_pairs` held-out pairs; () for none. pool:
    workdirs of other sampling seeds, measured together with this one. weights: files of the metrics
    that are networks, by metric.
    """

    metrics: tuple[str, ...] = ()
    num_real: int = 1024
    replicates: int = 1000
    seed: int = 0
    levels: tuple[int, ...] = ()
    level_pairs: int = 128
    pool: tuple[str, ...] = ()
    weights: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """parts: guidance, official, training, sampling (timed); estimate, text_step (compiled)."""

    batch_size: int = 8
    repeats: int = 10
    parts: tuple[str, ...] = ("guidance", "official")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeFocus:
    """A share `focus` of the noise levels is drawn from [low, high), the rest from all."""

    focus: float = 0.0
    low: int = 0
    high: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """Training of `target`: "discriminator", "super_resolution", or a key of `bases`.

    Attributes:
      learning_rate: peak, after warmup_steps; it falls to final_fraction of that by a cosine.
      num_microbatches: parts of a batch, one after the other; more of them take less memory.
      max_weight: limit of a level's weight in a base model's loss, None for equal weights of eps.
      time_sampler: "uniform", with the share `time` of its own, or "loss_second_moment" (Nichol and
        Dhariwal 2021) for a joint base model.
      keep: checkpoints. restore: "latest", or the number of a checkpoint's step.
      init_from: a weights file to start from instead of random numbers.
      weights_dtype: of weights.safetensors; checkpoints keep float32.
    """

    target: str = "discriminator"
    batch_size: int = 64
    num_steps: int = 1000
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    final_fraction: float = 0.02
    b2: float = 0.99
    clip_norm: float = 1.0
    weight_decay: float = 0.0
    ema_decay: float = 0.998
    num_microbatches: int = 1
    max_weight: float | None = 10.0
    time_sampler: str = "uniform"
    time: TimeFocus = TimeFocus()
    log_every: int = 20
    save_every: int = 250
    keep: int = 3
    init_from: str = ""
    restore: str | int = "latest"
    weights_dtype: str = "float16"
    objective: ObjectiveSpec = dataclasses.field(default_factory=ObjectiveSpec)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mesh:
    """Devices: `data` parts of the batch, times `fsdp` parts of the parameters; -1 for the rest."""

    data: int = -1
    fsdp: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Convert:
    """Weight conversion: architecture, source file and target file (or folder)."""

    architecture: str = ""
    source: str = ""
    target: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy:
    """Toy study on two-dimensional worlds; see `tasks.toy`."""

    worlds: tuple[str, ...] = ("ring", "moons", "checker", "pairs", "cross")
    bases: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    schedule: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"name": "linear"})
    discriminator: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    losses: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    sampler: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"name": "ddim"})
    num_steps: int = 50
    spacing: str = "trailing"
    scales: Mapping[str, float] = dataclasses.field(default_factory=dict)
    num_samples: int = 1000
    num_reference: int = 2000
    num_replicates: int = 100


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
    data: Data = Data()
    clip: ClipFormat = dataclasses.field(default_factory=ClipFormat)
    bases: Mapping[str, Base] = dataclasses.field(default_factory=dict)
    discriminator: Discriminator | None = None
    super_resolution: SuperResolutionBase | None = None
    guidance: Guidance = Guidance()
    weights: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fakes: Fakes = Fakes()
    sample: Sampling = Sampling()
    variants: Mapping[str, Sampling] = dataclasses.field(default_factory=dict)
    evaluate: Evaluation = Evaluation()
    bench: Bench = Bench()
    train: Training = Training()
    mesh: Mesh = Mesh()
    convert: Convert = Convert()
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
        weights = {name: find_weights(path) for name, path in plain.pop("weights").items()}
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
        """Whether one base model makes several modalities together."""
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
    config = complete(module.get_config(*([] if argument is None else [argument])))
    known = config.to_dict()
    for key, value in (overrides or {}).items():
        section, *rest = key.split(".")
        here: Any = known
        for name in (section, *rest):
            if not isinstance(here, Mapping) or name not in here:
                raise ValueError(f"unknown config key {key!r}: {path} has none of that name.")
            here = here[name]
        config.update_from_flattened_dict({key: value})
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
    return Discriminator(name=options.pop("name"), options=options)


def _super_resolution(section: Mapping[str, Any]) -> SuperResolutionBase | None:
    return SuperResolutionBase(**section) if section else None


def _sampling(section: Mapping[str, Any], where: str) -> Sampling:
    fields = dict(section)
    steppers = {m: made(SAMPLERS, s) for m, s in fields.pop("samplers").items()}
    settings = read_settings(Sampling, fields, where)
    return dataclasses.replace(settings, samplers=steppers)
