# SPDX-License-Identifier: Apache-2.0
"""Callable pytrees: arrays are taken out once, all else is static."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from mmdisco_jax.callables import Static, split, unwrap_static, wrap_static


def _scaled(weights, factor, x):
    return factor * weights @ x


def test_arrays_are_taken_out_once_and_put_back():
    shared, own = jnp.ones((2, 2)), np.arange(3)
    tree = {"f": Partial(_scaled, shared, 2.0), "g": (shared, own, None), "h": len}
    arrays, structure = split(tree)
    assert [array.shape for array in arrays] == [(2, 2), (3,)]
    built = structure.build(tuple(2 * array for array in arrays))
    assert built["h"] is len and built["g"][2] is None
    assert np.array_equal(built["f"](jnp.ones(2)), [8.0, 8.0])
    assert np.array_equal(built["g"][1], [0, 2, 4])


def test_structures_are_equal_for_equal_settings_and_the_same_functions():
    def of(weights, factor, function=len):
        return split((Partial(_scaled, weights, factor), function))[1]

    one = jnp.ones(2)
    assert of(one, 2.0) == of(3 * one, 2.0) and hash(of(one, 2.0)) == hash(of(3 * one, 2.0))
    assert of(one, 2.0) != of(one, 3.0) and of(one, 2.0) != of(one, 2)
    assert of(one, 2.0, lambda x: x) != of(one, 2.0, lambda x: x)
    assert split((one, one))[1] != split((one, one + 0))[1]  # shared, or not


def test_static_values_without_a_hash_are_compared_by_identity():
    one, other = [1], [1]
    assert Static(one) == Static(one) and Static(one) != Static(other)
    assert not jax.tree.leaves(wrap_static({"a": 1.0, "b": len}))
    assert unwrap_static(wrap_static({"a": 1.0, "b": len})) == {"a": 1.0, "b": len}
