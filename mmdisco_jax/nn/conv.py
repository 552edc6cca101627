# SPDX-License-Identifier: Apache-2.0
"""Convolutions with zero padding, average pooling, repetition; channel-last."""

from collections.abc import Sequence
from math import prod

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

_SPATIAL = "DHW"
# Uniform of variance 1 / (3 fan_in): PyTorch's default, with which the official networks start.
KERNEL_INIT = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def same_conv(
    x: Array,
    kernel: Array,
    *,
    dilation: int = 1,
    stride: int = 1,
    padding: tuple[int, int] | None = None,
) -> Array:
    """Cross-correlate x [b, *spatial, i] with kernel [*window, i, o].

    With stride 1 and its own padding the output has x's extent.

    Args:
      kernel: its window must be odd along each axis: an even one has no centre.
      stride: of the windows, along every axis.
      padding: zeros before and after, along every axis; None: as far as the window reaches.
    """
    window = kernel.shape[:-2]
    if any(size % 2 == 0 for size in window):
        raise ValueError(f"kernel window {window} must be odd along every axis")
    if prod(window) == 1 and stride == 1:  # a matrix product, which every backend does best
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
    """A convolution with bias: [b, *spatial, i] -> [b, *spatial, o], fewer with a stride.

    Computed in the dtype of the input, whatever the parameters have.

    Args:
      window: odd extent of the kernel along each spatial axis.
      dilation: distance between the taps, equal along all axes.
      stride, padding: as of `same_conv`.
      zero_init: start from a zero kernel, so that a residual branch starts as nothing.
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
    """Mean over disjoint windows of the spatial axes of x [b, *spatial, c]; a remainder is dropped.

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
    """Repeat each element of x [b, *spatial, c] `factors` times along the spatial axes."""
    for axis, factor in enumerate(factors, start=1):
        x = jnp.repeat(x, factor, axis=axis)
    return x
