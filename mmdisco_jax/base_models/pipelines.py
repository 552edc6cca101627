# SPDX-License-Identifier: Apache-2.0
"""Latent diffusion models from diffusers pipelines: U-Net, autoencoder, vocoder, text encoder.

A pipeline is a local folder in diffusers' layout, one that `convert` has written, or a Hugging Face
id. Architectures are read from each component's config.json; the recipe of a released model
(`audioldm.py`, `animatediff.py`) states the rest.
"""

import abc
import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from tqdm import tqdm

from mmdisco_jax import parallel
from mmdisco_jax.base_models.api import Base
from mmdisco_jax.nn.init import Init, definition, skeleton
from mmdisco_jax.porting.folders import open_component, read_json
from mmdisco_jax.porting.hub import locate
from mmdisco_jax.porting.lazy import LazyTensors, open_files
from mmdisco_jax.porting.place import as_torch, place
from mmdisco_jax.porting.port import PORTS, Port
from mmdisco_jax.process import SCHEDULES
from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.text.encoder import TextEncoder
from mmdisco_jax.text.tokens import load_tokenizer
from mmdisco_jax.types import AV, Array, Cond, LatentFormat, Params

# The file of a component whose weights `convert` has written with this project's names and layout.
OURS = "weights.safetensors"
_CONFIG, _SCHEDULER = "config.json", "scheduler/scheduler_config.json"
UNET, VAE, VOCODER, TEXT_ENCODER, TOKENIZER = (
    *("unet", "vae", "vocoder"),
    *("text_encoder", "tokenizer"),
)


class Component(NamedTuple):
    """One network of a pipeline: its config.json, its port, and its tensors, not read yet.

    port: None for a motion adapter, which is no network by itself. tensors: by the port's PyTorch
    names.
    """

    config: Mapping[str, Any]
    port: Port | None
    tensors: LazyTensors

    @property
    def spec(self) -> Any:
        assert self.port is not None
        return self.port.spec_of(self.config)

    def filled(self, abstract: nnx.State, **options: Any) -> nnx.State:
        """The parameters; options are those of `porting.place`."""
        overrides = self.port.overrides if self.port else None
        return place(abstract, self.tensors, overrides=overrides, **options)


def read_component(top: Path, folder: str, kind: str = "") -> Component:
    """The component in `top / folder`, with weights in diffusers' layout or in ours.

    kind: its class, for configs that do not name one.
    """
    ours = top / folder / OURS
    if ours.is_file():
        config = read_json(top / folder / _CONFIG)
        port = _port(config, kind)
        abstract = skeleton(port.module, port.spec_of(config))[1]
        tensors = as_torch(abstract, open_files([ours]), overrides=port.overrides)
        return Component(config, port, tensors)
    found = open_component(top, folder)
    if found.config.get("_class_name") == "MotionAdapter":
        return Component(found.config, None, found.tensors)
    port = _port(found.config, kind)
    return Component(found.config, port, port.named(found.tensors))


def _port(config: Mapping[str, Any], kind: str) -> Port:
    name = config.get("_class_name") or (config.get("architectures") or [kind])[0]
    return PORTS.get(kind if kind and name not in PORTS.names() else name)


class Network(NamedTuple):
    """The denoising network as its files, or a preset, describe it; tensors: None of a preset."""

    port: Port
    spec: Any
    tensors: LazyTensors | None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PipelineBase(Base):
    """A diffusers pipeline as a base model of one modality.

    Attributes:
      param_dtype, compute_dtype: of the denoising network.
      remat: what its backward pass computes again, a key of `unet_2d_spec.REMAT`.
      codec_dtype: in which the autoencoder computes.
      text_dtype: of the text encoder's weights.
      text_length: tokens of a prompt; 0 is the tokenizer's limit.
    """

    READS_TEXT: ClassVar[bool] = True
    TEXT_KIND: ClassVar[str]
    CODEC_PARTS: ClassVar[tuple[tuple[str, str], ...]] = ((VAE, "AutoencoderKL"),)
    SCHEDULE: ClassVar[Schedule]

    param_dtype: str = "bfloat16"
    compute_dtype: str = "bfloat16"
    remat: str = "none"
    codec_dtype: str = "float32"
    text_dtype: str = "float32"
    text_length: int = 0

    # A recipe of a released model gives these.
    @abc.abstractmethod
    def preset(self) -> Network:
        """The released architecture, for estimates without files."""
        ...

    @abc.abstractmethod
    def preset_format(self) -> LatentFormat:
        """The released latent format, for estimates without files."""
        ...

    @abc.abstractmethod
    def codec_network(self) -> Any:
        """The codec without its weights: encode(params, x), decode(params, x), abstract."""
        ...

    @property
    def schedules(self) -> dict[str, Schedule]:
        return {self.name: self.SCHEDULE}

    @functools.cached_property
    def formats(self) -> dict[str, LatentFormat]:
        if not self.weights:
            return {self.name: self.preset_format()}
        codec = self.codec_network()
        return {
            self.name: LatentFormat(
                shape=codec.latent_shape(self.clip),
                clock=codec.clock(self.clip),
                text_shape=self._text_shape(),
            )
        }

    def decoded_shapes(self) -> dict[str, tuple[int, ...]]:
        codec, latent = self.codec_network(), self.formats[self.name].shape
        zeros = np.zeros((1, *latent), np.float32)
        return {self.name: jax.eval_shape(codec.decode, codec.abstract, zeros).shape[1:]}

    # Files.
    def root(self, *models: str, others: tuple[str, ...] = ()) -> Path:
        """The local folder in which these components are complete, downloaded if need be."""
        return _root(self.weights, f"config.weights.{self.name}", *models, others=others)

    def component(self, folder: str, kind: str = "") -> Component:
        """One of the pipeline's components."""
        return read_component(self.root(folder), folder, kind)

    def require_files(self) -> None:
        models = (TEXT_ENCODER, *(folder for folder, _ in self.CODEC_PARTS), UNET)
        self.root(*models, others=(TOKENIZER,))

    # The denoising network.
    def network(self) -> Network:
        """Port, spec and tensors of the denoising network.

        Raises:
          ValueError: a network that is not ported.
          FileNotFoundError: files are missing.
        """
        if not self.weights:
            return self.preset()
        found = self.component(UNET)
        assert found.port is not None
        return Network(found.port, found.port.spec_of(found.config, **self._options), found.tensors)

    @property
    def _options(self) -> dict[str, Any]:
        return {"compute_dtype": self.compute_dtype, "remat": self.remat}

    @functools.cached_property
    def _network(self) -> Network:
        return self.network()

    def definition(self) -> tuple[nnx.GraphDef, Init]:
        return definition(self._network.port.module, self._network.spec)

    def load(self, mesh: Mesh | None = None, *, force_schedule: bool = False) -> Params:
        network = self._network
        if network.tensors is None:
            raise ValueError(f"config.weights.{self.name} is empty: name a folder or an id.")
        if not force_schedule:
            self._check_scheduler()
        _, abstract = skeleton(network.port.module, network.spec)
        shardings = parallel.tree_shardings(abstract, mesh) if mesh else None
        return place(abstract, network.tensors, shardings=shardings, dtype=self.param_dtype)

    def _check_scheduler(self) -> None:
        """ValueError if the pipeline was trained with another noise schedule than the recipe's."""
        path = self.root(UNET) / _SCHEDULER
        if not path.is_file():
            return
        found = read_json(path)
        kind = found.get("prediction_type", "epsilon")
        if kind != "epsilon":
            raise ValueError(f"{path}: prediction_type is {kind!r}, but must be 'epsilon'.")
        shape, keys = found.get("beta_schedule"), ("num_train_timesteps", "beta_start", "beta_end")
        if shape in SCHEDULES.names():
            theirs: Any = SCHEDULES.get(shape)(*(found[key] for key in keys))
            if theirs.digest() == self.SCHEDULE.digest():
                return
        raise ValueError(
            f"{path} says {shape} {[found.get(key) for key in keys]}, but base model {self.name} "
            f"({type(self).__name__}) has {dict(self.SCHEDULE.settings)}: each level would stand "
            "for another amount of noise. Give weights of this model; "
            "config.sample.force_schedule=True goes on."
        )

    @functools.cached_property
    def _digest(self) -> str:
        tensors = self._network.tensors or LazyTensors({})
        sha = hashlib.sha256()
        for key in tqdm(sorted(tensors), desc=f"weights of {self.name}", leave=False):
            array = np.ascontiguousarray(tensors[key])
            sha.update(f"{key} {array.dtype} {array.shape}".encode())
            sha.update(array.reshape(-1).view(np.uint8).data)
        return sha.hexdigest()

    def digest(self) -> str | None:
        return self._digest if self.weights else None

    def denoise(self, network: Any, x: AV, t: Array, cond: Cond) -> AV:
        m = self.name
        return {
            m: network(x[m], t) if cond is None else self._conditional(network, x[m], t, cond[m])
        }

    def _conditional(self, network: Any, x: Array, t: Array, text: Array) -> Array:
        """[b s d] text is attended to (Stable Diffusion, AnimateDiff)."""
        return network(x, t, text)

    # Codec and text.
    @property
    def slow_codecs(self) -> tuple[str, ...]:
        return (self.name,)

    def codecs(self) -> dict[str, Any]:
        return {self.name: self._codec}

    @functools.cached_property
    def _codec(self) -> Any:
        from mmdisco_jax.codecs.weighted import Loaded

        codec, parts = self.codec_network(), self._codec_parts
        if len(parts) == 1:
            return Loaded(codec=codec, params=parts[VAE].filled(codec.abstract))
        params = {name: found.filled(codec.abstract[name]) for name, found in parts.items()}
        return Loaded(codec=codec, params=params)

    @functools.cached_property
    def _codec_parts(self) -> dict[str, Component]:
        return {folder: self.component(folder, kind) for folder, kind in self.CODEC_PARTS}

    def text_encoders(self) -> dict[str, TextEncoder]:
        return {self.name: self._text_encoder}

    @functools.cached_property
    def _text_encoder(self) -> TextEncoder:
        found, port = self.component(TEXT_ENCODER, self.TEXT_KIND), PORTS.get(self.TEXT_KIND)
        if found.port is not port:
            raise ValueError(
                f"config.weights.{self.name}: the text encoder of {type(self).__name__} is a "
                f"{self.TEXT_KIND}, but {TEXT_ENCODER}/config.json there is of another class: "
                "give a pipeline of this model."
            )
        graphdef, abstract = skeleton(port.module, found.spec)
        params = found.filled(abstract, dtype=self.text_dtype)
        return TextEncoder(self._tokenizer(found.spec), graphdef, params)

    def _tokenizer(self, spec: Any) -> Any:
        folder = self.root(TEXT_ENCODER, others=(TOKENIZER,)) / TOKENIZER
        return load_tokenizer(folder, length=self.text_length or None, vocab_size=spec.vocab_size)

    def _text_shape(self) -> tuple[int, ...]:
        found = self.component(TEXT_ENCODER, self.TEXT_KIND)
        return self.text_shape(found.spec)

    def text_shape(self, spec: Any) -> tuple[int, ...]:
        """Shape of an embedded prompt, by the text encoder's spec."""
        return self._tokenizer(spec).length, spec.hidden_size

    def provenance(self) -> dict[str, Any]:
        recipe = {"recipe": type(self).__name__, "weights": self.weights}
        return recipe | {
            name: getattr(self, name) for name in ("codec_dtype", "text_dtype", "text_length")
        }


def _root(source: str, setting: str, *models: str, others: tuple[str, ...] = ()) -> Path:
    """The local folder of a pipeline; FileNotFoundError names what is missing and the remedy."""
    if models and all((Path(source) / name / OURS).is_file() for name in models):
        return Path(source)
    return locate(source, models=models, others=others, setting=setting)


def adapter_component(source: str, setting: str) -> Component:
    """A motion adapter: the folder itself is the component."""
    return read_component(_root(source, setting, ""), "")


def is_motion_unet(source: str) -> bool:
    """True if a local pipeline's U-Net already has motion modules, without an adapter."""
    path = Path(source) / UNET / _CONFIG
    return path.is_file() and read_json(path).get("_class_name") == "UNetMotionModel"
