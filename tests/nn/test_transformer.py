# SPDX-License-Identifier: Apache-2.0
"""The transformer's layers against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.nn.transformer import Block, Local, NoiseLevel, Stack, layer_norm
from tests.support.randoms import random_module


def test_the_local_convolution_is_numpys_with_zeros_beyond_the_ends():
    local = random_module(lambda: Local(3, 5))
    x = jax.random.normal(jax.random.key(0), (2, 7, 3))
    h, kernel = np.asarray(layer_norm(x)), np.asarray(local.kernel[...])
    wanted = np.array(x)
    for b in range(2):
        for d in range(3):
            wanted[b, :, d] += np.convolve(h[b, :, d], kernel[::-1, d], mode="same")
    np.testing.assert_allclose(local(x), wanted, rtol=1e-5, atol=1e-6)


def test_a_stack_is_its_blocks_one_after_the_other():
    stack = random_module(lambda: Stack(3, 8, 2, 3, rngs=param_keys(0)))
    modulation = random_module(lambda: NoiseLevel(8, 6, rngs=param_keys(1)))(jnp.array([3, 700]))
    x = jax.random.normal(jax.random.key(2), (2, 5, 8))
    graphdef, params = nnx.split(stack.blocks)
    wanted = x
    for i in range(3):
        block = nnx.merge(graphdef, jax.tree.map(lambda p, i=i: p[i], params))
        assert isinstance(block, Block)
        wanted = block(wanted, modulation)
    np.testing.assert_allclose(stack(x, modulation), wanted, rtol=1e-5, atol=1e-5)


def test_each_block_of_a_stack_starts_from_numbers_of_its_own():
    first, second = np.asarray(Stack(2, 4, 1, rngs=param_keys(0)).blocks.attention.qkv.kernel[...])
    assert not np.any(first == second)
    np.testing.assert_allclose([first.std(), second.std()], 0.5, atol=0.15)  # 1 / sqrt(fan in)


def test_bad_sizes_are_named():
    with pytest.raises(ValueError, match="odd or 0, got 4"):
        Block(8, 2, 4, rngs=param_keys(0))
    with pytest.raises(ValueError, match="multiple of num_heads 3"):
        Block(8, 3, rngs=param_keys(0))
    with pytest.raises(ValueError, match="got depth 0"):
        Stack(0, 8, 2, rngs=param_keys(0))
