# SPDX-License-Identifier: Apache-2.0
"""An experiment, assembled once: base models, discriminator, codecs, data, samplers and losses.

    system = load("configs/bounce.py")
    guided = joint(system.denoise, system.log_ratio, system.schedules, {"audio": 3.0, "video": 3.0})

Each part is made at its first use and kept. Modes of the command line are functions of a System;
see `mmdisco_jax.tasks`.
"""

import functools
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from mmdisco_jax.base_models.api import Base, check_schedules, made
from mmdisco_jax.codecs.weighted import Loaded
from mmdisco_jax.datasets import DATASETS
from mmdisco_jax.discriminator import DISCRIMINATORS
from mmdisco_jax.experiment import Experiment, load_config
from mmdisco_jax.guidance.classifier_free import classifier_free
from mmdisco_jax.guidance.joint import joint
from mmdisco_jax.inputs.clips import Clips
from mmdisco_jax.inputs.sources import find_prepared, open_source
from mmdisco_jax.inputs.windows import FixedWindows, WindowSize
from mmdisco_jax.io import to_int16
from mmdisco_jax.media.cutting import ClipSpec
from mmdisco_jax.media.prepare import prepare
from mmdisco_jax.nn.init import Init, definition
from mmdisco_jax.pair import BaseDenoiser, DiscriminatorLogRatio, Models
from mmdisco_jax.porting.weights import load_weights, read_metadata
from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.samplers.levels import Levels, levels, solver_levels
from mmdisco_jax.samplers.sampler import Sampler
from mmdisco_jax.sections import Sampling
from mmdisco_jax.types import AV, Array, DenoiseFn, LatentFormat, Params


def load(text: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None) -> "System":
    """Assembled experiment of a config file, or of a shipped config by its name.

    Args:
      text: "configs/bounce.py", "bounce", or a path of your own; arguments follow a colon.
      overrides: {"dotted.key": value}, as `--config.dotted.key=value` of the command line.

    Raises:
      ValueError: no such config, or settings that it refuses.
    """
    return System(Experiment.from_config(load_config(text, overrides)))


class System:
    """The parts of an experiment, each made once.

    Attributes: `experiment`; `mesh`, over which the base models' parameters are cut.
    """

    def __init__(self, experiment: Experiment, mesh: Mesh | None = None):
        self.experiment, self.mesh = experiment, mesh

    # What the models are.
    @functools.cached_property
    def bases(self) -> dict[str, Base]:
        """Recipes of the base models, by name."""
        return dict(self.experiment.bases)

    @functools.cached_property
    def modalities(self) -> tuple[str, ...]:
        return tuple(m for base in self.bases.values() for m in base.modalities)

    @functools.cached_property
    def schedules(self) -> dict[str, Schedule]:
        """Noise schedule of each modality."""
        found = [base.schedules for base in self.bases.values()]
        return {m: s for one in found for m, s in sorted(one.items())}

    @functools.cached_property
    def formats(self) -> dict[str, LatentFormat]:
        """Latent format of each modality."""
        return {m: f for base in self.bases.values() for m, f in base.formats.items()}

    @functools.cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Latent shape of each modality, without the batch axis."""
        return {m: tuple(f.shape) for m, f in self.formats.items()}

    @property
    def reads_text(self) -> bool:
        """True if the base models are conditioned on prompts; known without their files."""
        return any(base.READS_TEXT for base in self.bases.values())

    # Networks and weights.
    @functools.cached_property
    def definitions(self) -> dict[str, tuple[nnx.GraphDef, Init]]:
        """Graph definition of each base model, and a function key -> random parameters."""
        return {name: base.definition() for name, base in self.bases.items()}

    @functools.cached_property
    def models(self) -> Models:
        return tuple((base, self.definitions[name][0]) for name, base in self.bases.items())

    @functools.cached_property
    def base_params(self) -> dict[str, Params]:
        """Frozen parameters of the base models, from their weight files.

        Raises:
          FileNotFoundError, ValueError: as of `Base.load`.
        """
        force = any(v.force_schedule for v in self.settings)
        return {
            name: base.load(self.mesh, force_schedule=force) for name, base in self.bases.items()
        }

    @property
    def settings(self) -> list[Sampling]:
        """Sampling settings: those of the experiment, and of each variant."""
        return [self.experiment.sample, *self.experiment.variants.values()]

    @functools.cached_property
    def base_digests(self) -> dict[str, str]:
        """SHA-256 of the base models' weights, of those that have any."""
        found = {name: base.digest() for name, base in self.bases.items()}
        return {name: digest for name, digest in found.items() if digest}

    @functools.cached_property
    def discriminator(self) -> tuple[nnx.GraphDef, Init]:
        """Graph definition of the discriminator, and a function key -> random parameters."""
        section = self.experiment.discriminator
        if section is None:
            raise ValueError("config.discriminator is empty: name one, such as 'official'.")
        settings = {"name": section.name, **section.options}
        return definition(functools.partial(made, DISCRIMINATORS, settings, self.formats))

    @functools.cached_property
    def reads_features(self) -> bool:
        """True if the discriminator reads features of the base models."""
        graphdef, init = self.discriminator
        network = nnx.merge(graphdef, jax.eval_shape(init, jax.random.key(0)))
        return hasattr(network, "on_bases")

    def discriminator_params(self, path: str = "", *, force_schedule: bool = False) -> Params:
        """Parameters of the discriminator from `path`, or from weights.discriminator.

        Raises:
          FileNotFoundError: no such file.
          ValueError: another network's weights; weights of a training with other noise schedules;
            or a discriminator that reads features of other base weights than the config's.
        """
        path = path or self.experiment.weights.get("discriminator", "")
        _, init = self.discriminator
        params = load_weights(path, jax.eval_shape(init, jax.random.key(0)))
        if not force_schedule:
            check_schedules(path, self.schedules)
        if self.reads_features:
            self._check_bases(path)
        return params

    def _check_bases(self, path: str) -> None:
        wanted = json.loads(read_metadata(path).get("bases", "{}"))
        for name, digest in wanted.items():
            mine = self.base_digests.get(name, "missing")
            if mine != digest:
                raise ValueError(
                    f"{path} reads features of a {name} model with SHA-256 {digest[:12]}, but the "
                    f"config's weights.{name} is {mine[:12]}: give the weights it was trained on, "
                    "or train the discriminator again."
                )

    # Functions of the pair.
    @functools.cached_property
    def denoise(self) -> BaseDenoiser:
        """Noise estimates of the frozen base models, a DenoiseFn."""
        return BaseDenoiser(self.models, self.base_params)

    @functools.cached_property
    def log_ratio(self) -> DiscriminatorLogRatio:
        """Log-ratio of the discriminator of weights.discriminator, a LogRatioFn."""
        force = self.experiment.sample.force_schedule
        return self.log_ratio_of(self.discriminator_params(force_schedule=force))

    def log_ratio_of(
        self, params: Params, base_params: dict[str, Params] | None = None
    ) -> DiscriminatorLogRatio:
        """Log-ratio of a discriminator with these parameters."""
        if not self.reads_features:
            base_params = {}
        elif base_params is None:
            base_params = self.base_params
        form = self.experiment.guidance.log_ratio
        return DiscriminatorLogRatio(self.discriminator[0], self.models, params, base_params, form)

    # Signals and latents.
    @functools.cached_property
    def codecs(self) -> dict[str, Any]:
        """Codec of each modality, with its weights: objects with encode(x) and decode(x)."""
        return {m: c for base in self.bases.values() for m, c in base.codecs().items()}

    @functools.cached_property
    def encoders(self) -> dict[str, Callable[[Any], Array]]:
        """Compiled functions from a batch of clips to latents."""
        # A codec that is a network compiles itself, with its weights as an argument.
        return {
            m: c.encode if isinstance(c, Loaded) else jax.jit(c.encode)
            for m, c in self.codecs.items()
        }

    def encode(self, clips: Mapping[str, Any]) -> AV:
        """Latents of clips {"video": uint8 [b f h w 3], "audio": int16 [b samples]}."""
        return {m: encode(np.asarray(clips[m])) for m, encode in self.encoders.items()}

    def decode(self, latents: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Clips of latents: pictures as uint8, sound as int16."""
        clips = {}
        for m, x in latents.items():
            clip = np.asarray(self.codecs[m].decode(x))
            clips[m] = clip if np.issubdtype(clip.dtype, np.integer) else to_int16(clip)
        return clips

    @functools.cached_property
    def text_encoders(self) -> dict[str, Any]:
        """Functions (prompts) -> embeddings [n ...], of the modalities that read text."""
        return {m: e for base in self.bases.values() for m, e in base.text_encoders().items()}

    @property
    def clip_spec(self) -> ClipSpec:
        """Format to which media files are converted for these models."""
        clip = self.experiment.clip
        return ClipSpec(
            clip_seconds=clip.seconds,
            fps=clip.fps,
            height=clip.height,
            width=clip.width,
            sample_rate_hz=clip.sample_rate_hz,
            spatial=self.experiment.data.options.get("spatial", "pad"),
        )

    # Prepared data.
    def source(self, split: str, *, in_memory: bool = False) -> Any:
        """Prepared clips as raw examples.

        Raises:
          FileNotFoundError, ValueError: nothing prepared, or with other rates than the config's.
        """
        clip = self.experiment.clip
        source = open_source(self._prepared(), split, in_memory=in_memory)
        for name, wanted in (("fps", clip.fps), ("sample_rate_hz", clip.sample_rate_hz)):
            prepared = source.metadata.get(name)
            if prepared is not None and prepared != wanted:
                raise ValueError(
                    f"the clips in {source.directory} have {name} = {prepared}, but config.clip."
                    f"{name} is {wanted}: prepare the data with that rate, or change the config."
                )
        return source

    def _prepared(self) -> Path:
        """Folder of the prepared dataset that the config's options describe.

        Simulated data are prepared here if they are missing. Where media are gone since, or have
        changed, and `data.dir` is set, the only dataset in that folder is used.
        """
        data = self.experiment.data
        builder = DATASETS.get(data.name)
        try:
            name = builder.config(**data.options).name
        except (FileNotFoundError, ValueError, TypeError):
            if not data.dir:
                raise
            return find_prepared(data.name, data_dir=data.folder)
        folder = data.folder / builder.name / name / str(builder.VERSION)
        if not folder.is_dir():
            if not getattr(builder, "SIMULATED", False) or jax.process_count() > 1:
                raise FileNotFoundError(
                    f"the dataset {data.name!r} of this config is not prepared: there is no "
                    f"{folder}. Run the mode prepare with the same config first."
                )
            prepare(data.name, data.folder, **data.options)
        return folder

    def window(self, source: Any) -> WindowSize | None:
        """Window that is drawn from prepared clips longer than the config's; None for the whole."""
        clip = self.experiment.clip
        if source.metadata.get("clip_seconds", clip.seconds) == clip.seconds:
            return None
        return WindowSize(num_frames=clip.num_frames, num_samples=clip.num_samples)

    def clips(self, split: str) -> Clips:
        """Prepared clips, cut into the config's length one window after the other.

        `clips[i]` is one example, `clips[:8]` a batch {"video", "audio"} of eight.
        """
        source = self.source(split)
        size = self.window(source)
        return Clips(source if size is None else FixedWindows(source, size))

    # Sampling.
    def levels(self, settings: Sampling) -> Levels:
        """Noise levels that a variant visits."""
        if settings.grid == "levels":
            return levels(self.schedules, settings.num_steps, settings.spacing, settings.offset)
        if settings.grid != "solver":
            raise ValueError(
                f"unknown sample.grid {settings.grid!r}: choose one of levels, solver."
            )
        return solver_levels(
            self.schedules,
            settings.num_steps,
            settings.spacing,
            to_clean=settings.to_clean,
            model_time=settings.model_time,
        )

    def sampler(self, variant: str) -> Sampler:
        """Sampler of one of `sample.variants`.

        Raises:
          ValueError: settings that do not go together.
        """
        settings = self.experiment.variant(variant)
        self._check_condition(settings)
        missing = [m for m in self.modalities if m not in settings.samplers]
        if missing:
            raise ValueError(f"config.sample.samplers lacks a sampler of {missing}: name one.")
        steppers = {m: settings.samplers[m] for m in self.schedules}
        self._check_variance(variant, self.learned_variance(settings))
        return Sampler(
            steppers, self.schedules, self.levels(settings), num_substeps=settings.num_substeps
        )

    def denoiser(self, variant: str, no_text: AV | None = None) -> DenoiseFn:
        """Denoiser of a variant: the base models, under its text guidance and joint guidance.

        no_text: embeddings [b ...] of the negative prompt, for models that read text.
        """
        settings = self.experiment.variant(variant)
        params = None
        if settings.is_guided:
            params = self.discriminator_params(
                settings.discriminator_weights, force_schedule=settings.force_schedule
            )
        return self.guided(settings, self.base_params, params, no_text)

    def guided(
        self,
        settings: Sampling,
        base_params: dict[str, Params],
        params: Params | None,
        no_text: AV | None = None,
    ) -> DenoiseFn:
        """As `denoiser`, with these parameters; without guidance where `params` is None."""
        base = BaseDenoiser(self.models, base_params, self.learned_variance(settings))
        text_guidance = None
        if no_text is not None:
            text_guidance = functools.partial(
                classifier_free, scales=dict(settings.text_scales), uncond=no_text
            )
        if params is None or not settings.is_guided:
            return text_guidance(base) if text_guidance else base
        return joint(
            base,
            self.log_ratio_of(params, base_params),
            self.schedules,
            dict(settings.scales),
            plan=settings.guidance_plan,
            text_guidance=text_guidance,
        )

    def learned_variance(self, settings: Sampling) -> tuple[str, ...]:
        """Modalities whose stepper takes the variance that the base model learned."""
        return tuple(m for m, s in settings.samplers.items() if s.learned_variance)

    def _check_condition(self, settings: Sampling) -> None:
        given = settings.condition.given
        if given and not self.experiment.is_joint and not settings.is_guided:
            raise ValueError(
                f"sample.condition.given is {given!r}, but two models on their own know nothing "
                "of each other: use a joint base model, or guidance (sample.scales)."
            )

    def _check_variance(self, variant: str, learned: tuple[str, ...]) -> None:
        if not learned:
            return
        if not all(getattr(base, "learns_variance", False) for base in self.bases.values()):
            raise ValueError(
                f"the samplers of {list(learned)} take the base model's variance (learned_range), "
                "but it has none: train a joint model with learn_sigma, or use fixed_small or "
                "fixed_large."
            )
        if self.experiment.variant(variant).is_guided:
            raise ValueError(
                f"variant {variant!r} guides the noise, and the samplers of {list(learned)} take "
                "a learned variance with it: use fixed_small or fixed_large in a guided variant."
            )

    def require_files(self, variants: tuple[str, ...] | list[str] = ()) -> None:
        """Checks that all weight files for these variants are here, before any work starts.

        Raises:
          FileNotFoundError: each file that is missing, and where it should be.
        """
        for variant in variants:
            settings = self.experiment.variant(variant)
            path = settings.discriminator_weights or self.experiment.weights["discriminator"]
            if settings.is_guided and not Path(path).is_file():
                raise FileNotFoundError(
                    f"config.weights.discriminator={path!r}: no such file. Train a discriminator, "
                    "or convert a released one, and name its file."
                )
        lacking = []
        for base in self.bases.values():
            try:
                base.require_files()
            except FileNotFoundError as error:
                lacking.append(str(error))
        if lacking:
            raise FileNotFoundError("\n".join(lacking))

    def loss(self, target: str) -> Any:
        """Training loss of "discriminator", "super_resolution" or a base model: `TrainingLoss`."""
        from mmdisco_jax.losses import training_loss  # which needs this module

        return training_loss(self, target)
