# SPDX-License-Identifier: Apache-2.0
"""The start of a sampling, found from its end: for golden samples whose x_T was not recorded."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mmdisco_jax.types import AV

_ITERATIONS = 1000
_FLATTEST = 1e-4  # slopes below this are of elements that clipping has cut loose from their start


def implied_start(run: Callable[[AV], AV], end: AV) -> AV:
    """x_T with run(x_T) = end: each element is moved by half its error over the common slope.

    Slow and sure: an element follows its own start and, through the means, all others, so that
    Newton's longer steps leave the neighbourhood of the solution.
    """

    def correct(_, x: AV) -> AV:
        y, slope = jax.jvp(run, (x,), (jax.tree.map(jnp.ones_like, x),))
        new = {}
        for m in x:
            step = (end[m] - y[m]) / jnp.maximum(jnp.abs(slope[m]), _FLATTEST)
            new[m] = jnp.clip(x[m] + 0.5 * step, -6, 6)
        return new

    start = jax.tree.map(jnp.zeros_like, end)
    return jax.jit(lambda x: jax.lax.fori_loop(0, _ITERATIONS, correct, x))(start)
