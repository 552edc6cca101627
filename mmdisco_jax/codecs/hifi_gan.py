# SPDX-License-Identifier: Apache-2.0
"""HiFi-GAN vocoder (Kong et al. 2020): log-mel spectrograms to waveforms, for AudioLDM.

Equal to transformers' `SpeechT5HifiGan` in parameter names, shapes and numbers.
"""

import dataclasses
from collections.abc import Mapping
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from mmdisco_jax.nn.conv import Conv
from mmdisco_jax.porting.port import Port

# Exceptions to the naming rule of checkpoints: NNX path -> name and axes. Here `scale` is a
# statistic of the spectrogram; elsewhere the rule takes it for the weight of a norm.
OVERRIDES: dict[str, tuple[str, tuple[int, ...]]] = {"scale": ("scale", (0,))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class HifiGanSpec:
    """Sizes of the vocoder, under transformers' names.

    Attributes:
      model_in_dim: number of mel bands.
      sampling_rate: sample rate of the wave in Hz.
      upsample_initial_channel: width before the first level; each level halves it.
      upsample_rates: stride of each level's transposed convolution.
      upsample_kernel_sizes: window of each level's transposed convolution.
      resblock_kernel_sizes: windows of the residual blocks that each level averages.
      resblock_dilation_sizes: dilations of each of these residual blocks.
      leaky_relu_slope: slope of all activations but the last, which has PyTorch's default.
      normalize_before: standardise the spectrogram by the checkpoint's mean and scale.

    Raises:
      ValueError: the sizes do not fit each other.
    """

    model_in_dim: int
    sampling_rate: int
    upsample_initial_channel: int
    upsample_rates: tuple[int, ...]
    upsample_kernel_sizes: tuple[int, ...]
    resblock_kernel_sizes: tuple[int, ...]
    resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    leaky_relu_slope: float = 0.1
    normalize_before: bool = True

    def __post_init__(self):
        for one, other in (
            ("upsample_rates", "upsample_kernel_sizes"),
            ("resblock_kernel_sizes", "resblock_dilation_sizes"),
        ):
            first, second = getattr(self, one), getattr(self, other)
            if not first or len(first) != len(second):
                raise ValueError(
                    f"{one} {first} and {other} {second} must be equally long, and not empty."
                )
        for rate, window in zip(self.upsample_rates, self.upsample_kernel_sizes, strict=True):
            if not 1 <= rate <= window:
                raise ValueError(
                    f"upsample_kernel_sizes has {window} for a rate of {rate}; it must be at least "
                    "the rate, or samples would be left out."
                )
        even = [size for size in self.resblock_kernel_sizes if size % 2 == 0]
        if even:
            raise ValueError(f"resblock_kernel_sizes {even} must be odd: even ones have no centre.")
        halvings = 2 ** len(self.upsample_rates)
        if self.upsample_initial_channel % halvings:
            raise ValueError(
                f"upsample_initial_channel is {self.upsample_initial_channel}, but each of "
                f"{len(self.upsample_rates)} levels halves it: use a multiple of {halvings}."
            )

    @property
    def hop_length(self) -> int:
        """Number of samples per frame."""
        return prod(self.upsample_rates)

    def num_samples(self, num_frames: int) -> int:
        """Compute the length of the wave for a number of frames.

        It is hop_length per frame, and a few samples more if a window exceeds its rate by an odd
        number, as in AudioLDM's first level (16 and 5).
        """
        for rate, window in zip(self.upsample_rates, self.upsample_kernel_sizes, strict=True):
            num_frames = num_frames * rate + (window - rate) % 2
        return num_frames


class ConvTranspose(nnx.Module):
    """1-D transposed convolution, as PyTorch's with padding (window - stride) // 2.

    It maps [b l i] to [b stride*l o], or one sample more if window - stride is odd. The kernel
    [k o i] is that of the strided convolution which this one transposes, so that the naming rule
    for convolutions applies to it.
    """

    def __init__(
        self, in_channels: int, out_channels: int, window: int, stride: int, *, rngs: nnx.Rngs
    ):
        self.stride = stride
        init = nnx.initializers.normal(0.01)
        self.kernel = nnx.Param(init(rngs.params(), (window, out_channels, in_channels)))
        self.bias = nnx.Param(jnp.zeros(out_channels))

    def __call__(self, x: Array) -> Array:
        kernel, bias = (p[...].astype(x.dtype) for p in (self.kernel, self.bias))
        window = kernel.shape[0]
        margin = window - 1 - (window - self.stride) // 2
        spread = jax.lax.conv_general_dilated(
            x,
            kernel[::-1],
            window_strides=(1,),
            padding=[(margin, margin)],
            lhs_dilation=(self.stride,),
            dimension_numbers=("NWC", "WOI", "NWC"),
        )
        return spread + bias


class ResidualBlock(nnx.Module):
    """Residual block of dilated convolutions: [b l c] -> [b l c].

    Each dilation has a pair of convolutions with a residual connection of its own.
    """

    def __init__(
        self,
        channels: int,
        window: int,
        dilations: tuple[int, ...],
        slope: float,
        *,
        rngs: nnx.Rngs,
    ):
        self.slope = slope
        self.convs1 = nnx.List(
            [Conv(channels, channels, (window,), dilation=d, rngs=rngs) for d in dilations]
        )
        self.convs2 = nnx.List([Conv(channels, channels, (window,), rngs=rngs) for _ in dilations])

    def __call__(self, x: Array) -> Array:
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            hidden = dilated(jax.nn.leaky_relu(x, self.slope))
            x = x + plain(jax.nn.leaky_relu(hidden, self.slope))
        return x


class HifiGan(nnx.Module):
    """HiFi-GAN vocoder. Maps a log-mel spectrogram to a wave in [-1, 1]."""

    def __init__(self, spec: HifiGanSpec, *, rngs: nnx.Rngs):
        self.spec = spec
        width = spec.upsample_initial_channel
        widths = [width // 2**level for level in range(len(spec.upsample_rates) + 1)]
        self.conv_pre = Conv(spec.model_in_dim, width, (7,), rngs=rngs)
        sizes = zip(
            widths[:-1], widths[1:], spec.upsample_kernel_sizes, spec.upsample_rates, strict=True
        )
        self.upsampler = nnx.List([ConvTranspose(*size, rngs=rngs) for size in sizes])
        kinds = list(zip(spec.resblock_kernel_sizes, spec.resblock_dilation_sizes, strict=True))
        self.resblocks = nnx.List(
            [
                ResidualBlock(w, window, dilations, spec.leaky_relu_slope, rngs=rngs)
                for w in widths[1:]
                for window, dilations in kinds
            ]
        )
        self.conv_post = Conv(widths[-1], 1, (7,), rngs=rngs)
        # Statistics of the spectrograms, which the checkpoint contains beside the weights.
        self.mean = nnx.Variable(jnp.zeros(spec.model_in_dim))
        self.scale = nnx.Variable(jnp.ones(spec.model_in_dim))

    def __call__(self, mel: Array) -> Array:
        """Synthesise waves [b n], n = spec.num_samples(l), from mel [b l model_in_dim].

        Waves are computed and returned in the dtype of `mel`.

        Raises:
          ValueError: `mel` has another shape.
        """
        spec = self.spec
        if mel.ndim != 3 or mel.shape[-1] != spec.model_in_dim:
            raise ValueError(
                f"mel has shape {mel.shape}; it must be [b l m] with m={spec.model_in_dim}."
            )
        if spec.normalize_before:
            standard = (mel - self.mean[...]) / self.scale[...]
            mel = standard.astype(mel.dtype)
        x = self.conv_pre(mel)
        count = len(spec.resblock_kernel_sizes)
        for level, up in enumerate(self.upsampler):
            x = up(jax.nn.leaky_relu(x, spec.leaky_relu_slope))
            first, *rest = (self.resblocks[level * count + n](x) for n in range(count))
            x = sum(rest, start=first) / count
        return jnp.tanh(self.conv_post(jax.nn.leaky_relu(x)))[..., 0]


# transformers' defaults for keys that a config.json does not have.
_DEFAULTS: dict[str, Any] = {
    "model_in_dim": 80,
    "sampling_rate": 16_000,
    "upsample_initial_channel": 512,
    "upsample_rates": (4, 4, 4, 4),
    "upsample_kernel_sizes": (8, 8, 8, 8),
    "resblock_kernel_sizes": (3, 7, 11),
    "resblock_dilation_sizes": ((1, 3, 5),) * 3,
    "leaky_relu_slope": 0.1,
    "normalize_before": True,
}


def spec_from_config(config: Mapping[str, Any]) -> HifiGanSpec:
    """Read the spec from the `config.json` of a transformers `SpeechT5HifiGan`.

    Raises:
      ValueError: the config is that of another model, or the sizes do not fit each other.
    """
    model = config.get("model_type", "speecht5_hifigan")
    if model != "speecht5_hifigan":
        raise ValueError(
            f"the vocoder's config has model_type={model!r}, but only 'speecht5_hifigan' is "
            "ported: choose another checkpoint."
        )
    values = {key: config.get(key, default) for key, default in _DEFAULTS.items()}
    return HifiGanSpec(**{key: _tuples(value) for key, value in values.items()})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


PORT = Port(spec_of=spec_from_config, module=HifiGan, folds=True, overrides=OVERRIDES)
