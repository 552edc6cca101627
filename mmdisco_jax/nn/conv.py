# SPDX-License-Identifier: Apache-2.0
"""Convolution with zero padding, average pooling and nearest-neighbour upsampling; channel-last."""

from collections.abc import Sequence
from math import prod

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

_SPATIAL = "DHW"
# PyTorch's default, from which the official networks start: uniform, with variance 1 / (3 fan_in).
KERNEL_INIT = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def same_conv(
    x: Array,
    kernel: Array,
    *,
    dilation: int = 1,
    stride: int = 1,
    padding: tuple[int, int] | None = None,
) -> Array:
    """Cross-correlate x [b, *spatial, i] with a kernel [*window, i, o], padding with zeros.

    With stride 1 and the default padding, the output has the extent of x.

    Args:
      kernel: each extent of its window must be odd, because an even window has no centre.
      dilation: distance between the taps, along every axis.
      stride: distance between the windows, along every axis.
      padding: number of zeros before and after, along every axis; None pads as far as the window
        reaches.

    Raises:
      ValueError: an extent of the window is even.
    """
    window = kernel.shape[:-2]
    if any(size % 2 == 0 for size in window):
        raise ValueError(f"kernel window {window} must be odd along every axis")
    if prod(window) == 1 and stride == 1:  # a matrix product is the fastest form on every backend
        return x @ kernel.reshape(kernel.shape[-2:])
    axes = _SPATIAL[-len(window) :]
    reach = [dilation * (size // 2) for size in window]
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride,) * len(window),
        padding=[padding or (margin, margin) for margin in reach],
        rhs_dilation=(dilation,) * len(window),
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
    )


class Conv(nnx.Module):
    """Convolution with bias over 1 to 3 spatial axes: [b, *spatial, i] -> [b, *spatial', o].

    It computes in the dtype of its input, so that a network with float32 parameters runs in
    bfloat16 when its input is bfloat16.

    Args:
      window: odd extent of the kernel along each spatial axis.
      dilation, stride, padding: see `same_conv`.
      zero_init: start from a zero kernel, so that a residual branch contributes nothing at first.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        window: Sequence[int],
        *,
        dilation: int = 1,
        stride: int = 1,
        padding: tuple[int, int] | None = None,
        zero_init: bool = False,
        rngs: nnx.Rngs,
    ):
        init = nnx.initializers.zeros_init() if zero_init else KERNEL_INIT
        self.dilation, self.stride, self.padding = dilation, stride, padding
        self.kernel = nnx.Param(init(rngs.params(), (*window, in_channels, out_channels)))
        self.bias = nnx.Param(jnp.zeros(out_channels))

    def __call__(self, x: Array) -> Array:
        kernel, bias = (p[...].astype(x.dtype) for p in (self.kernel, self.bias))
        options = {"dilation": self.dilation, "stride": self.stride, "padding": self.padding}
        return same_conv(x, kernel, **options) + bias


def avg_pool(x: Array, window: Sequence[int]) -> Array:
    """Average x [b, *spatial, c] over disjoint windows of its spatial axes; drop any remainder.

    Raises:
      ValueError: an axis is shorter than its window.
    """
    spatial = x.shape[1:-1]
    blocks = [extent // size for extent, size in zip(spatial, window, strict=True)]
    if 0 in blocks:
        raise ValueError(f"cannot pool {spatial} by {tuple(window)}: an axis is too short")
    for axis, (count, size) in enumerate(zip(blocks, window, strict=True), start=1):
        if x.shape[axis] != count * size:
            x = jax.lax.slice_in_dim(x, 0, count * size, axis=axis)
    pairs = [part for pair in zip(blocks, window, strict=True) for part in pair]
    split = x.reshape(x.shape[0], *pairs, x.shape[-1])
    return split.mean(tuple(range(2, split.ndim - 1, 2)))


def upsample(x: Array, factors: Sequence[int]) -> Array:
    """Upsample x [b, *spatial, c] by repeating each element `factors` times along its axis."""
    for axis, factor in enumerate(factors, start=1):
        x = jnp.repeat(x, factor, axis=axis)
    return x
