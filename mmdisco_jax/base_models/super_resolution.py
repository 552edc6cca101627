# SPDX-License-Identifier: Apache-2.0
"""MM-Diffusion's super-resolution (2212.09478): the guided-diffusion U-Net, frame by frame."""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from mmdisco_jax.base_models.api import as_schedule
from mmdisco_jax.base_models.image_unet import ImageUNet, ImageUNetSpec
from mmdisco_jax.base_models.losses import noise_prediction
from mmdisco_jax.nn.init import Init, definition
from mmdisco_jax.porting.weights import load_weights, read_metadata
from mmdisco_jax.process.noising import TimeSampler
from mmdisco_jax.process.predictions import convert
from mmdisco_jax.process.schedules import Schedule, linear
from mmdisco_jax.types import AV, Array, Cond, DenoiseFn, Params

# (x_t [b h w c], t [b]) -> what the network says of them.
Predict = Callable[[Array, Array], Array]

# Both released files, AIST++_SR and Landscape_SR, have this shape.
PRESETS = {
    "sr64to256": ImageUNetSpec(
        in_channels=6,
        out_channels=6,
        model_channels=192,
        channel_mult=(1, 1, 2, 2, 4, 4),
        attention_factors=(8, 16, 32),
        num_heads=4,
        scale_shift_norm=True,
        resize_in_blocks=True,
    ),
}


class SuperResolution(ImageUNet):
    """The U-Net on a noisy picture beside an enlarged small one."""

    def __call__(
        self,
        x: Array,
        t: Array,
        low: Array,
        *,
        y: Array | None = None,
        key: Array | None = None,
    ) -> Array:
        """x [b h w c] noisy, low [b h' w' c] in [-1, 1] -> [b h w out_channels].

        With twice c output channels the second half is the learned variance: v in [-1, 1] mixes
        the logarithms of the smallest and the largest (Nichol and Dhariwal 2021, equation 15).
        Other arguments and errors as `ImageUNet`.
        """
        if low.ndim != 4 or low.shape[0] != x.shape[0]:
            raise ValueError(f"low has shape {low.shape}; it must be [b h w c] with x's b.")
        enlarged = bilinear(low, x.shape[1], x.shape[2]).astype(x.dtype)
        return super().__call__(jnp.concatenate([x, enlarged], axis=-1), t, y=y, key=key)


def bilinear(x: Array, height: int, width: int) -> Array:
    """x [b h w c] resized as PyTorch's bilinear `interpolate` with align_corners=False.

    Pixel centres lie at halves, borders repeat, and nothing is averaged when it shrinks.
    """
    shape = (x.shape[0], height, width, x.shape[-1])
    return jax.image.resize(x, shape, "linear", antialias=False)


def frame_denoiser(model: Callable[..., Array], modality: str = "video") -> DenoiseFn:
    """Noise predictor of a clip from one of pictures: frames share nothing but the clip's time.

    Returns:
      ({modality: x_t [b f h w c]}, t [b], cond {modality: low [b f h' w' c]}) -> {modality: eps}.
      The official sampler starts all frames of a clip from one noise, [b 1 h w c] repeated.
    """

    def denoise(x: AV, t: Array, cond: Cond) -> AV:
        clip, low = x[modality], cond[modality]
        b, f, *_, c = clip.shape
        x_t, small = (a.reshape(b * f, *a.shape[2:]) for a in (clip, low))
        eps = model(x_t, jnp.repeat(t, f), small)[..., :c]
        return {modality: eps.reshape(clip.shape)}

    return denoise


def picture_loss(
    model: Callable[..., Array],
    high: Array,
    low: Array,
    key: Array,
    criterion: Callable[[Predict, Array, Array], tuple[Array, dict[str, Array]]],
) -> tuple[Array, dict[str, Array]]:
    """The loss of a network on pictures beside small ones.

    Args:
      model: as `SuperResolution`.
      high: [b h w c] in [-1, 1]; low: [b h' w' c].
      key: of the noise and of the dropout.
      criterion: (predict, high, key) -> (loss, metrics), where predict gives all of the network's
        channels: `noise_half` for a loss of the noise alone, such as `losses.noise_prediction`.
        The variance half of the output then learns nothing; one that is to be used, by DDPM, needs
        a criterion with a term for it. DDIM does not use it.
    """
    noise_key, dropout_key = jax.random.split(key)

    def predict(x_t: Array, t: Array) -> Array:
        return model(x_t, t, low, key=dropout_key)

    return criterion(predict, high, noise_key)


def noise_half(predict: Predict, schedule: Schedule, prediction: str = "eps") -> Predict:
    """eps from a network's first channels, as many as x_t has, without its variance.

    prediction: what these channels are: "eps", as officially, or another of `process.predictions`.
      A narrow network, or one trained for minutes, cannot carry the noise through as exactly as
      high levels demand; such a one had better predict the signal, "x0".
    """

    def eps(x_t: Array, t: Array) -> Array:
        first = predict(x_t, t)[..., : x_t.shape[-1]]
        return convert(first, prediction, "eps", x_t, schedule.alpha(t), schedule.sigma(t))

    return eps


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SuperResolutionBase:
    """Recipe of a super-resolution model: pictures of `low_size` to `high_size`, frame by frame.

    Attributes:
      low_size, high_size: sides of the square pictures, in pixels.
      base: fields of `ImageUNetSpec`.
      prediction: meaning of the network's first channels, as of `noise_half`.
      schedule: an object, or settings {"name": ..., ...}.
      sampler: settings of a stepper; respacing: levels that it visits, as of `respaced_levels`.
      frames_per_batch: pictures on the device at a time.
      pairs: `frames_per_clip`, and fields of `inputs.degradations.DegradationSpec` for training.
      weights: a `.safetensors` file.

    Raises:
      ValueError: a network with other channels than such a model has.
    """

    LICENCE: ClassVar[str] = "MIT (code); the released weights name none"
    # Settings that weights are trained for: another value makes another model of equal shapes.
    TRAINED_FOR: ClassVar[tuple[str, ...]] = (
        *("low_size", "high_size", "base", "schedule", "prediction"),
    )

    low_size: int = 64
    high_size: int = 256
    base: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    prediction: str = "eps"
    schedule: Any = dataclasses.field(default_factory=linear)
    sampler: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: {"name": "ddim", "eta": 0.0, "clip": 1.0}
    )
    respacing: str = "ddim25"
    frames_per_batch: int = 16
    pairs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    weights: str = ""

    def __post_init__(self):
        object.__setattr__(self, "schedule", as_schedule(self.schedule))
        if self.frames_per_batch < 1:
            raise ValueError(
                f"super_resolution.frames_per_batch is {self.frames_per_batch}, but must be >= 1."
            )

    @functools.cached_property
    def spec(self) -> ImageUNetSpec:
        spec = ImageUNetSpec(**self.base)
        if spec.in_channels != 6 or spec.out_channels not in (3, 6):
            raise ValueError(
                f"config.super_resolution.base has {spec.in_channels} channels in and "
                f"{spec.out_channels} out, but must have 6 in (noisy and small picture) and 3 out, "
                "or 6 with a learned variance."
            )
        return spec

    def definition(self) -> tuple[nnx.GraphDef, Init]:
        """Graph definition of the network, and a function key -> random parameters."""
        return definition(SuperResolution, self.spec)

    def denoise(self, network: SuperResolution, modality: str) -> DenoiseFn:
        """Noise predictor of clips {modality: [b f H W 3]}; cond {modality: small ones}."""

        def eps(x_t: Array, t: Array, low: Array) -> Array:
            predict = functools.partial(_beside, network, low)
            return noise_half(predict, self.schedule, self.prediction)(x_t, t)

        return frame_denoiser(eps, modality)

    def loss(
        self,
        network: SuperResolution,
        batch: Mapping[str, Array],
        key: Array,
        levels: TimeSampler,
        *,
        max_weight: float | None,
        criterion: Callable[..., Any] | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        """Loss of pairs {"high": [b n H W 3], "low": [b n h w 3]}: the error of the noise.

        criterion: another loss, as `picture_loss` takes it.
        """

        def noise_error(predict: Any, high: Array, key: Array) -> Any:
            eps_fn = noise_half(predict, self.schedule, self.prediction)
            return noise_prediction(eps_fn, high, key, self.schedule, levels, max_weight=max_weight)

        high, low = (batch[name].reshape(-1, *batch[name].shape[2:]) for name in ("high", "low"))
        return picture_loss(network, high, low, key, criterion or noise_error)

    def load(self) -> Params:
        """Parameters of `weights`.

        Raises:
          FileNotFoundError: no such file.
          ValueError: other shapes than the network's, or weights trained for other settings.
        """
        _, init = self.definition()
        params = load_weights(self.weights, jax.eval_shape(init, jax.random.key(0)))
        trained = json.loads(read_metadata(self.weights).get("config", "{}"))
        trained = trained.get("super_resolution", {})
        mine = {name: _plain(getattr(self, name)) for name in self.TRAINED_FOR}
        for name in self.TRAINED_FOR:
            if name in trained and _without_dropout(trained[name]) != _without_dropout(mine[name]):
                raise ValueError(
                    f"{self.weights} was trained with super_resolution.{name} = {trained[name]}, "
                    f"but the config has {mine[name]}: give other weights, or set it back."
                )
        return params


def _beside(network: SuperResolution, low: Array, x_t: Array, t: Array) -> Array:
    return network(x_t, t, low)


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value.settings if isinstance(value, Schedule) else value))


def _without_dropout(value: Any) -> Any:
    """A setting without what matters in training alone."""
    return {k: v for k, v in value.items() if k != "dropout"} if isinstance(value, dict) else value
