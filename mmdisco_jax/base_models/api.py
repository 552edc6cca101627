# SPDX-License-Identifier: Apache-2.0
"""Recipe of a frozen diffusion model: everything that depends on which model it is.

A recipe states the modalities that a model makes, its noise schedule, codec, text encoder and
latent format, and how its weights are loaded, so that these facts cannot disagree. Each released
model is one file of this package; `"package.module:attribute"` names a recipe anywhere else.
"""

import abc
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from mmdisco_jax import parallel
from mmdisco_jax.codecs import CODECS
from mmdisco_jax.io import digest
from mmdisco_jax.nn.init import Init
from mmdisco_jax.porting.weights import load_weights, read_metadata
from mmdisco_jax.process import SCHEDULES
from mmdisco_jax.process.noising import LevelSampler
from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.types import AV, Array, ClipFormat, Cond, LatentFormat, Params

_SHOWN = 12  # digits of a digest


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Base(abc.ABC):
    """Base class of recipes.

    Attributes:
      name: key in `config.bases` and `config.weights`; a model of one modality makes the modality
        of this name.
      clip: format of the clips that it models.
      weights: file, folder or Hugging Face id of its parameters; "" for a model without weights
        (training, and estimates of cost).

    Class attributes:
      SOURCES: other entries of `config.weights` that the recipe reads, fields of the same name.
      LEVEL_SAMPLERS: names of the distributions of noise levels that `loss` can be trained with.
      READS_TEXT: whether the model is conditioned on prompts.
      LICENCE: of the released weights, "" for models that are trained here.
    """

    SOURCES: ClassVar[tuple[str, ...]] = ()
    LEVEL_SAMPLERS: ClassVar[tuple[str, ...]] = ("uniform",)
    READS_TEXT: ClassVar[bool] = False
    LICENCE: ClassVar[str] = ""

    name: str
    clip: ClipFormat
    weights: str = ""

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities that the model makes."""
        return (self.name,)

    @property
    @abc.abstractmethod
    def schedules(self) -> dict[str, Schedule]:
        """Noise schedule of each modality, as the model was trained."""
        ...

    @property
    @abc.abstractmethod
    def formats(self) -> dict[str, LatentFormat]:
        """Latent shape, clock, text shape and feature width of each modality."""
        ...

    @abc.abstractmethod
    def definition(self) -> tuple[nnx.GraphDef, Init]:
        """Graph definition of the network, and a function key -> random parameters."""
        ...

    @abc.abstractmethod
    def load(self, mesh: Mesh | None = None, *, force_schedule: bool = False) -> Params:
        """Parameters from `weights`, cut over `mesh` if it is given.

        Raises:
          FileNotFoundError: no weights there.
          ValueError: tensors that are not exactly the network's, or weights that were trained with
            another noise schedule (unless `force_schedule`).
        """
        ...

    @abc.abstractmethod
    def digest(self) -> str | None:
        """SHA-256 that identifies the weights; None where there are none yet."""
        ...

    def require_files(self) -> None:
        """Downloads what is missing and can be; FileNotFoundError names the rest.

        By default there is nothing to download: `load` reports a missing file.
        """
        return None

    @abc.abstractmethod
    def codecs(self) -> dict[str, Any]:
        """Codec of each modality, with its weights: objects with encode(x) and decode(x)."""
        ...

    @property
    def slow_codecs(self) -> tuple[str, ...]:
        """Modalities whose codec is a network, which a training step does not run."""
        return ()

    @abc.abstractmethod
    def decoded_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of a clip decoded from a latent of each modality; no weights are read."""
        ...

    def text_encoders(self) -> dict[str, Any]:
        """Functions (prompts) -> embeddings [n ...] of the modalities that read text."""
        return {}

    @abc.abstractmethod
    def provenance(self) -> dict[str, Any]:
        """JSON of the codecs and encoders: what latents and embeddings depend on."""
        ...

    @abc.abstractmethod
    def denoise(self, network: Any, x: AV, t: Array, cond: Cond) -> AV:
        """Noise estimates eps of noisy latents x at levels t [b]."""
        ...

    def denoise_with_variance(self, network: Any, x: AV, t: Array, cond: Cond) -> AV:
        """As `denoise`, [b ... 2c]: eps, then the learned variance in its range."""
        raise ValueError(
            f"the samplers take the variance of base model {self.name!r} (learned_range), but it "
            "has none: use fixed_small or fixed_large, or a joint model with learn_sigma."
        )

    def features(self, network: Any, modality: str, x: Array, t: Array) -> Array:
        """Features [b frames width] for discriminators, where `formats` names a feature width."""
        raise ValueError(f"base model {self.name!r} offers no features for discriminators.")

    def loss(
        self,
        network: Any,
        x0: AV,
        key: Array,
        levels: LevelSampler,
        history: Any,
        *,
        max_weight: float | None,
    ) -> tuple[Array, dict[str, Array], Any]:
        """Training loss of clean latents x0: (loss, metrics, history of the level sampler)."""
        raise ValueError(
            f"base model {self.name!r} is a released one and is not trained here: train.target "
            "must be the discriminator, or a base model that is."
        )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TrainedBase(Base):
    """A base model whose weights are a file of this project, trained here or converted.

    `weights` is a `.safetensors` file; its metadata record the noise schedules of the training.
    """

    def load(self, mesh: Mesh | None = None, *, force_schedule: bool = False) -> Params:
        _, init = self.definition()
        params = load_weights(self.weights, jax.eval_shape(init, jax.random.key(0)))
        if not force_schedule:
            check_schedules(self.weights, self.schedules)
        if mesh is None:
            return params
        return jax.device_put(params, parallel.tree_shardings(params, mesh))

    def digest(self) -> str | None:
        return digest(self.weights) if Path(self.weights).is_file() else None

    def decoded_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = {m: (1, *f.shape) for m, f in self.formats.items()}
        codecs = self.codecs()
        return {m: codecs[m].decode(np.zeros(s, np.float32)).shape[1:] for m, s in shapes.items()}

    def provenance(self) -> dict[str, Any]:
        return {m: codec_settings(c) for m, c in self.codecs().items()}


def as_schedule(value: Schedule | Mapping[str, Any]) -> Schedule:
    """A schedule from its settings {"name": ..., arguments}; a schedule is returned as it is."""
    return value if isinstance(value, Schedule) else made(SCHEDULES, value)


def as_codec(value: Any, clip: ClipFormat) -> Any:
    """A codec of clips of this format from its settings; a codec is returned as it is."""
    if not isinstance(value, Mapping):
        return value
    fields = dict(value)
    name = fields.pop("name", None)
    kind = CODECS.get(name)
    if not hasattr(kind, "for_clip"):
        raise ValueError(
            f"codec {name!r} is a network, whose weights come with a released base model: choose "
            "a codec without weights, or a base model that brings its own."
        )
    try:
        return kind.for_clip(clip, **fields)
    except TypeError as error:
        raise ValueError(f"config of codec {name!r}: {error}.") from error


def made(registry: Any, settings: Mapping[str, Any], *args: Any, **extra: Any) -> Any:
    """The registry's entry `settings["name"]`, called with the rest of the settings.

    Raises:
      ValueError: an unknown name, or settings that the entry does not take.
    """
    fields = dict(settings)
    maker = registry.get(fields.pop("name", None))
    try:
        return maker(*args, **fields, **extra)
    except TypeError as error:
        raise ValueError(f"config of {registry.kind} {settings['name']!r}: {error}.") from error


def codec_settings(codec: Any) -> dict[str, Any]:
    """Class and fields of a codec without weights, ready for JSON."""
    return {"class": type(codec).__name__, **dataclasses.asdict(codec)}


def schedule_record(schedules: Mapping[str, Schedule]) -> str:
    """JSON {modality: {"section": settings, "abar": digest}} for a weight file's metadata."""
    return json.dumps(_rows(schedules))


def _rows(schedules: Mapping[str, Schedule]) -> dict[str, dict[str, Any]]:
    return {m: {"section": dict(s.settings), "abar": s.digest()} for m, s in schedules.items()}


def check_schedules(path: str, schedules: Mapping[str, Schedule]) -> None:
    """Refuses weights that were trained with other noise schedules.

    A base model of 1000 levels that is asked for 100 of another schedule takes each level for
    another amount of noise, and its samples are poor without an error.

    Raises:
      ValueError: the file's metadata name another schedule. A file that names none is accepted.
    """
    recorded = json.loads(read_metadata(path).get("schedules", "{}"))
    mine = _rows(schedules)
    found = [
        f"{m}: trained with {_shown(row)}, the config has {_shown(mine.get(m))}"
        for m, row in recorded.items()
        if row["abar"] != mine.get(m, {}).get("abar")
    ]
    if found:
        raise ValueError(
            f"{path} is of another noise schedule ({'; '.join(found)}), so that each level would "
            "stand for another amount of noise. Set the schedule of config.bases to that of the "
            "training, or give weights trained with the config's; config.sample.force_schedule="
            "True goes on."
        )


def _shown(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "none"
    return f"{json.dumps(row['section'])} [abar {row['abar'][:_SHOWN]}]"
