# SPDX-License-Identifier: Apache-2.0
"""The keys are those of nnx.Rngs, without its cost."""

import jax
import numpy as np
from flax import nnx

from mmdisco_jax.nn.init import param_keys


def test_keys_are_those_of_rngs():
    theirs = nnx.Rngs(jax.random.key(5))
    for ours in (param_keys(5), param_keys(jax.random.key(5))):
        mine = [jax.random.key_data(ours.params()) for _ in range(4)]
        assert len({tuple(map(int, key)) for key in mine}) == 4
    wanted = [jax.random.key_data(theirs.params()) for _ in range(4)]
    np.testing.assert_array_equal(mine, wanted)


def test_counting_leaves_nothing_in_a_trace():
    """Keys are counted in Python: each count in an array would be an equation of the trace."""

    def trace(keys):
        return jax.make_jaxpr(lambda key: [keys(key).params() for _ in range(1)])(jax.random.key(0))

    ours, theirs = (len(trace(keys).eqns) for keys in (param_keys, nnx.Rngs))
    assert ours < theirs
