# SPDX-License-Identifier: Apache-2.0
"""Patch embedding geometry: reshapes any channel-last array to a sequence of tokens and back.

A patch is a block of neighbouring elements along the axes of a sample [*axes, c]: time and
frequency for sound; time, height and width for video.
"""

import math

from mmdisco_jax.types import Array


def check_patch(shape: tuple[int, ...], patch: tuple[int, ...]) -> None:
    """Raise ValueError unless `patch` divides the axes of `shape` [*axes, channels]."""
    axes = shape[:-1]
    if len(patch) != len(axes) or any(a % p for a, p in zip(axes, patch, strict=False)):
        raise ValueError(f"patch {patch} must divide the axes {axes} of a sample of shape {shape}.")


def num_tokens(shape: tuple[int, ...], patch: tuple[int, ...]) -> int:
    """Count the tokens of a sample of `shape` [*axes, channels]."""
    return math.prod(a // p for a, p in zip(shape[:-1], patch, strict=True))


def patchify(x: Array, patch: tuple[int, ...]) -> Array:
    """Cut x [b, *axes, c] into tokens [b, n, prod(patch) * c], in row-major order of the axes."""
    *axes, c = x.shape[1:]
    n = len(axes)
    split = [s for a, p in zip(axes, patch, strict=True) for s in (a // p, p)]
    x = x.reshape(x.shape[0], *split, c)
    order = (0, *range(1, 2 * n, 2), *range(2, 2 * n + 1, 2), 2 * n + 1)
    return x.transpose(order).reshape(x.shape[0], -1, math.prod(patch) * c)


def unpatchify(tokens: Array, shape: tuple[int, ...], patch: tuple[int, ...]) -> Array:
    """Invert `patchify`: tokens [b, n, prod(patch) * c] to samples [b, *shape]."""
    *axes, c = shape
    n = len(axes)
    counts = [a // p for a, p in zip(axes, patch, strict=True)]
    x = tokens.reshape(tokens.shape[0], *counts, *patch, c)
    order = (0, *(i for k in range(n) for i in (1 + k, 1 + n + k)), 2 * n + 1)
    return x.transpose(order).reshape(tokens.shape[0], *axes, c)
