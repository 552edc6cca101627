# SPDX-License-Identifier: Apache-2.0
"""Sections of an experiment: frozen dataclasses of settings with their defaults."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdisco_jax.discriminator.objective import ObjectiveSpec
from mmdisco_jax.guidance.joint import Plan
from mmdisco_jax.resources import cache_dir
from mmdisco_jax.samplers.api import Stepper


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """Dataset, and how training reads it.

    name: of the registry `datasets.DATASETS`, or "package.module:attribute". dir: folder of
    prepared data; "" is the user's cache folder. options: of the dataset's builder. flip: clips
    that are mirrored, "half", "off", or "official" for all. num_workers: processes that read
    batches ahead, 0 for threads. prepare_workers: processes that cut media files. in_memory:
    whether training keeps all clips in memory. latents: a folder into which `prepare` encodes the
    training clips once, and from which `train` reads them; for codecs that cost more than reading,
    without flips.
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
        """True if the discriminator takes part."""
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
