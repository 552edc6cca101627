# SPDX-License-Identifier: Apache-2.0
"""Group and layer normalisation of channel-last arrays (Wu and He 2018; Ba et al. 2016)."""

import jax.numpy as jnp
from flax import nnx
from jax import Array

EPSILON = 1e-5  # PyTorch's default


def check_groups(num_channels: int, num_groups: int) -> None:
    """Raise ValueError unless `num_groups` divides `num_channels`."""
    if num_groups < 1 or num_channels % num_groups:
        raise ValueError(
            f"{num_channels} channels cannot form {num_groups} groups: the number of groups must "
            "divide the number of channels; change one of them"
        )


def group_norm(
    x: Array, num_groups: int, scale: Array, shift: Array, *, epsilon: float = EPSILON
) -> Array:
    """Group norm: normalise x over all axes but the batch, jointly within each group of channels.

    The result is `normalised * scale + shift`. Scale and shift may differ by sample, so that a
    modulation by the diffusion time costs no pass of its own. Statistics are float32 and two-pass:
    subtracting the mean first keeps the variance exact when the mean is large.

    Args:
      x: [b, ..., c].
      scale, shift: [c] or [b, c].

    Returns:
      Array of x's shape and dtype.
    """
    batch, channels = x.shape[0], x.shape[-1]
    inner = tuple(range(1, x.ndim - 1))

    def per_group(channel_mean: Array) -> Array:  # [b, c] -> [b, c], equal within a group
        grouped = channel_mean.reshape(batch, num_groups, -1)
        mean = grouped.mean(-1, keepdims=True)
        return jnp.broadcast_to(mean, grouped.shape).reshape(batch, channels)

    def spread(per_channel: Array) -> Array:  # [c] or [b, c] -> broadcasts against x
        return jnp.expand_dims(jnp.atleast_2d(per_channel), inner)

    values = x.astype(jnp.float32)
    centred = values - spread(per_group(values.mean(inner)))
    variance = per_group(jnp.square(centred).mean(inner))
    factor = scale / jnp.sqrt(variance + epsilon)
    return (centred * spread(factor) + spread(shift)).astype(x.dtype)


class GroupNorm(nnx.Module):
    """Group norm with a learned scale and bias per channel: [b, ..., c] -> same shape and dtype."""

    def __init__(self, num_groups: int, num_channels: int, *, epsilon: float = EPSILON):
        check_groups(num_channels, num_groups)
        self.num_groups = num_groups
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.ones(num_channels))
        self.bias = nnx.Param(jnp.zeros(num_channels))

    def __call__(self, x: Array, modulation: tuple[Array, Array] | None = None) -> Array:
        """Normalise x; with modulation (scale, shift), [b c] each: norm(x) * (1 + scale) + shift.

        The modulation is folded into the learned scale and bias, so that it costs no extra pass.
        """
        scale, bias = self.scale[...], self.bias[...]
        if modulation is not None:
            gain = 1 + modulation[0]
            scale, bias = scale * gain, bias * gain + modulation[1]
        return group_norm(x, self.num_groups, scale, bias, epsilon=self.epsilon)


class LayerNorm(nnx.Module):
    """Layer norm with a learned scale and bias: [... c] -> same shape and dtype.

    Statistics are float32 and two-pass, as in `group_norm`.
    """

    def __init__(self, num_features: int, *, epsilon: float = EPSILON):
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.ones(num_features))
        self.bias = nnx.Param(jnp.zeros(num_features))

    def __call__(self, x: Array) -> Array:
        values = x.astype(jnp.float32)
        centred = values - values.mean(-1, keepdims=True)
        spread = jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + self.epsilon)
        return (centred / spread * self.scale[...] + self.bias[...]).astype(x.dtype)
