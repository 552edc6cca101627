# SPDX-License-Identifier: Apache-2.0
"""Patches and transformer layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.nn.patches import check_patch, num_tokens, patchify, unpatchify
from mmdisco_jax.nn.time_embedding import sinusoidal_embedding
from mmdisco_jax.nn.transformer import Attention, NoiseLevel, layer_norm


@pytest.mark.parametrize(
    ("shape", "patch"), [((4, 8, 8, 3), (1, 4, 2)), ((8, 6, 1), (2, 6)), ((8, 2), (4,))]
)
def test_patches_are_blocks_and_come_back(shape, patch):
    x = jax.random.normal(jax.random.key(0), (2, *shape))
    tokens = patchify(x, patch)
    assert tokens.shape[1] == num_tokens(shape, patch)
    first = x[(slice(None), *(slice(0, p) for p in patch))]
    np.testing.assert_array_equal(tokens[:, 0], first.reshape(2, -1))
    last = x[(slice(None), *(slice(-p, None) for p in patch))]
    np.testing.assert_array_equal(tokens[:, -1], last.reshape(2, -1))
    np.testing.assert_array_equal(unpatchify(tokens, shape, patch), x)


def test_a_patch_that_does_not_divide_is_named():
    with pytest.raises(ValueError, match=r"\(3, 4\) must divide the axes \(8, 8\)"):
        check_patch((8, 8, 1), (3, 4))


def test_attention_equals_its_definition():
    layer = Attention(8, 2, rngs=param_keys(0))
    x = jax.random.normal(jax.random.key(1), (3, 5, 8))
    q, k, v = np.split(np.asarray(layer.qkv(x)).reshape(3, 5, 6, 4), 3, axis=2)
    out = np.zeros((3, 5, 2, 4))
    for h in range(2):
        score = q[:, :, h] @ k[:, :, h].transpose(0, 2, 1) / 2.0
        weight = np.exp(score) / np.exp(score).sum(-1, keepdims=True)
        out[:, :, h] = weight @ v[:, :, h]
    want = layer.out(jnp.asarray(out.reshape(3, 5, 8), jnp.float32))
    np.testing.assert_allclose(layer(x), want, rtol=1e-4, atol=1e-5)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="multiple of num_heads 3"):
        Attention(8, 3, rngs=param_keys(0))


def test_noise_level_embedding():
    emb = sinusoidal_embedding(jnp.array([0, 10]), 6, cos_first=True)
    np.testing.assert_allclose(emb[0], [1, 1, 1, 0, 0, 0], atol=1e-6)
    frequency = 10_000.0 ** (-np.arange(3) / 3)
    np.testing.assert_allclose(emb[1, 3:], np.sin(10 * frequency), rtol=1e-4)
    level = NoiseLevel(6, 2, rngs=param_keys(0))
    assert not np.any(level(jnp.array([5])))  # modulation starts as the identity


def test_layer_norm_has_zero_mean_and_unit_variance():
    x = 5 + 3 * jax.random.normal(jax.random.key(0), (4, 64))
    np.testing.assert_allclose(layer_norm(x).mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(layer_norm(x).std(-1), 1, rtol=1e-4)
