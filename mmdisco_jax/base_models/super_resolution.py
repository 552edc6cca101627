# SPDX-License-Identifier: Apache-2.0
"""MM-Diffusion's super-resolution (2212.09478): the guided-diffusion U-Net, frame by frame."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mmdisco_jax.base_models.image_unet import ImageUNet, ImageUNetSpec
from mmdisco_jax.process.predictions import convert
from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.types import AV, Array, Cond, DenoiseFn

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
