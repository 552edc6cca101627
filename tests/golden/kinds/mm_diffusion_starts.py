# SPDX-License-Identifier: Apache-2.0
"""The start of a sampling, found from its end: for golden samples whose x_T was not recorded."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import gmres

from mmdisco_jax.types import AV

_ITERATIONS = 30
_FLATTEST = 1e-6  # slopes below this are of elements that clipping has cut loose from their start


def implied_start(run: Callable[[AV], AV], end: AV) -> AV:
    """x_T with run(x_T) = end, by Newton's method in float64 (call under `jax.enable_x64`).

    The linear systems are solved in units of each element's own slope, beside which the influence
    of the other elements, through their means, is small.
    """

    def correct(_, x: AV) -> AV:
        y, tangent = jax.linearize(run, x)
        signs = {m: jax.random.rademacher(jax.random.key(0), v.shape, v.dtype) for m, v in x.items()}
        slope = {
            m: jnp.maximum(jnp.abs(moved), _FLATTEST) for m, moved in tangent(signs).items()
        }
        scaled = jax.tree.map(lambda a, b, s: (a - b) / s, end, y, slope)
        def system(u: AV) -> AV:
            return jax.tree.map(jnp.divide, tangent(u), slope)

        step, _ = gmres(system, scaled, restart=8, maxiter=1)
        # It divides by the residual's norm, which is 0 at the solution.
        step = jax.tree.map(lambda d: jnp.clip(jnp.nan_to_num(d), -0.5, 0.5), step)
        return jax.tree.map(lambda v, d: jnp.clip(v + d, -6, 6), x, step)

    start = jax.tree.map(jnp.zeros_like, end)
    return jax.jit(lambda x: jax.lax.fori_loop(0, _ITERATIONS, correct, x))(start)
