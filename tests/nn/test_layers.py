# SPDX-License-Identifier: Apache-2.0
"""Linear layer, layer norm, attention's choice of kernel, and rematerialisation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmdisco_jax.nn.attention import attention, einsum_attention
from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.nn.layers import Linear, remat_call
from mmdisco_jax.nn.norm import LayerNorm
from tests.support.randoms import random_module

X = np.random.default_rng(0).standard_normal((2, 3, 8)).astype(np.float32)


@pytest.mark.parametrize("use_bias", [True, False])
def test_linear_is_a_product_in_the_dtype_of_its_input(use_bias: bool):
    layer = random_module(lambda: Linear(8, 4, use_bias=use_bias, rngs=param_keys(0)))
    wanted = X @ np.asarray(layer.kernel[...])
    if layer.bias is not None:
        wanted = wanted + np.asarray(layer.bias[...])
    np.testing.assert_allclose(layer(jnp.asarray(X)), wanted, rtol=1e-5, atol=1e-6)
    assert layer(jnp.asarray(X, jnp.bfloat16)).dtype == jnp.bfloat16
    assert (layer.bias is None) != use_bias


def test_layer_norm_keeps_its_variance_where_the_mean_is_large():
    norm = random_module(lambda: LayerNorm(8, epsilon=1e-3))
    far = X + 1000  # where a mean of squares minus a squared mean has lost half of the variance
    exact = far.astype(np.float64)
    centred = exact - exact.mean(-1, keepdims=True)
    wanted = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-3)
    wanted = wanted * np.asarray(norm.scale[...]) + np.asarray(norm.bias[...])
    np.testing.assert_allclose(norm(jnp.asarray(far)), wanted, atol=1e-4)
    assert norm(jnp.asarray(X, jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("attend", [attention, einsum_attention])
def test_attention_is_the_formula(attend):
    q, k, v = (
        np.random.default_rng(i).standard_normal((2, n, 3, 4)) for i, n in enumerate((5, 7, 7))
    )
    scores = np.einsum("bqhd,bkhd->bhqk", q, k) / 2
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    wanted = np.einsum("bhqk,bkhd->bqhd", weights, v)
    got = attend(*(jnp.asarray(a, jnp.float32) for a in (q, k, v)))
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("backend", "capability", "queries", "wanted"),
    [
        ("gpu", "9.0", ((1, 256, 8, 40), jnp.bfloat16), "cudnn"),
        ("gpu", "8.0", ((1, 128, 8, 128), jnp.float16), "cudnn"),
        ("gpu", "7.5", ((1, 256, 8, 40), jnp.bfloat16), "xla"),
        ("gpu", "gfx90a", ((1, 256, 8, 40), jnp.bfloat16), "xla"),
        ("gpu", "9.0", ((1, 256, 8, 40), jnp.float32), "xla"),
        ("gpu", "9.0", ((1, 256, 8, 160), jnp.bfloat16), "xla"),
        ("gpu", "9.0", ((1, 256, 8, 36), jnp.bfloat16), "xla"),
        ("gpu", "9.0", ((65536, 16, 8, 40), jnp.bfloat16), "xla"),
        ("cpu", "9.0", ((1, 256, 8, 40), jnp.bfloat16), "xla"),
    ],
)
def test_flash_attention_is_asked_for_where_it_can_run(
    monkeypatch: pytest.MonkeyPatch, backend: str, capability: str, queries: tuple, wanted: str
):
    class Device:
        compute_capability = capability

    asked = []
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "devices", lambda: [Device()])
    monkeypatch.setattr(
        jax.nn,
        "dot_product_attention",
        lambda q, k, v, *, implementation, **_: asked.append(implementation),
    )
    q: Any = jax.ShapeDtypeStruct(*queries)
    attention(q, q, q, flash=True)
    attention(q, q, q)
    assert asked == [wanted, "xla"]


class Square(nnx.Module):
    kind = "square"

    def __call__(self, x: jax.Array, shift: jax.Array | None) -> jax.Array:
        return jnp.square(x if shift is None else x + shift)


@pytest.mark.parametrize("shift", [None, 2.0])
def test_a_block_is_recomputed_if_its_kind_is_listed(shift: float | None):
    shift = None if shift is None else jnp.float32(shift)
    for kinds, count in ((("square", "other"), 1), (("other",), 0)):
        jaxpr = jax.make_jaxpr(lambda x, kinds=kinds: remat_call(Square(), kinds, x, shift))(3.0)
        found = [str(equation.primitive) for equation in jaxpr.eqns]
        assert sum("remat" in p or "checkpoint" in p for p in found) == count
        gradient = jax.grad(lambda x, kinds=kinds: remat_call(Square(), kinds, x, shift))(3.0)
        assert gradient == (6.0 if shift is None else 10.0)
