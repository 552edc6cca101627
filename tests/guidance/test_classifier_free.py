# SPDX-License-Identifier: Apache-2.0
"""Classifier-free guidance: its algebra, and one batch instead of two calls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmdisco_jax.guidance.classifier_free import classifier_free

X = {"audio": jnp.arange(6.0).reshape(2, 3), "video": jnp.ones((2, 2, 2))}
T = jnp.array([3, 700])
COND = {"text": jnp.array([[1.0], [2.0]]), "fps": jnp.array([8, 10])}
EMPTY = {"text": jnp.zeros((2, 1)), "fps": jnp.array([8, 10])}


def _field(batches: list[int]):
    """Depends on x, t and both conditions, sample by sample; records the batch of each call."""

    def field(x, t, cond):
        batches.append(len(t))
        shift = cond["text"][:, 0] * 10 + cond["fps"] + t / 1000
        return {m: jnp.sin(v) + shift.reshape(-1, *[1] * (v.ndim - 1)) for m, v in x.items()}

    return field


@pytest.mark.parametrize("scales", [(2.5, 7.5), (1.0, 3.0), (0.0, 1.0), (-1.0, 0.5)])
def test_batched_equals_two_calls(scales):
    batches: list[int] = []
    field, g = _field(batches), dict(zip(X, scales, strict=True))
    got = classifier_free(field, g, EMPTY)(X, T, COND)
    assert batches == [4]
    cond, uncond = field(X, T, COND), field(X, T, EMPTY)
    for m in X:
        np.testing.assert_allclose(got[m], uncond[m] + g[m] * (cond[m] - uncond[m]), rtol=1e-5)


@pytest.mark.parametrize(("g", "said"), [(1, COND), (0, EMPTY)])
def test_one_and_zero_are_the_models_themselves_at_half_the_cost(g, said):
    batches: list[int] = []
    field = _field(batches)
    got = classifier_free(field, {m: g for m in X}, EMPTY)(X, T, COND)
    assert batches == [2]
    want = field(X, T, said)
    assert all(np.array_equal(got[m], want[m]) for m in X)


def test_known_numbers():
    def field(x, t, cond):
        return {"audio": x["audio"] * cond[:, None]}

    guided = classifier_free(field, {"audio": 7.5}, jnp.full(2, 1.0))
    got = guided({"audio": jnp.array([[1.0], [2.0]])}, T, jnp.full(2, 3.0))
    np.testing.assert_allclose(got["audio"], [[16.0], [32.0]])  # x + 7.5 (3 x - x)


def test_scales_may_be_traced_per_sample_and_partial():
    field = _field([])

    def guided(scales):
        return classifier_free(field, scales, EMPTY)(X, T, COND)

    want, uncond = guided({"audio": 2.5, "video": 7.5}), field(X, T, EMPTY)
    traced = jax.jit(guided)({"audio": 2.5, "video": 7.5})
    each = guided({"audio": jnp.array([2.5, 0.0]), "video": 7.5})
    partial = guided({"audio": 2.5})
    for m in X:
        np.testing.assert_allclose(traced[m], want[m], rtol=1e-5)
    np.testing.assert_allclose(each["audio"][0], want["audio"][0], rtol=1e-5)
    np.testing.assert_allclose(each["audio"][1], uncond["audio"][1], rtol=1e-5)
    assert np.array_equal(partial["video"], uncond["video"])
    assert np.array_equal(partial["audio"], want["audio"])
