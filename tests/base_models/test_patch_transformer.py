# SPDX-License-Identifier: Apache-2.0
"""The trained-from-scratch base model and its loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmdisco_jax.base_models.losses import noise_prediction
from mmdisco_jax.base_models.patch_transformer import PatchTransformer, PatchTransformerSpec
from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.process.noising import TimeSampler
from mmdisco_jax.process.schedules import linear
from tests.support.randoms import random_module

VIDEO = {"sample_shape": (4, 8, 8, 3), "patch": (1, 4, 4), "patch_width": 8}
AUDIO = {"sample_shape": (8, 6, 1), "patch": (2, 6), "patch_width": 0}


def _model(shape: dict):
    spec = PatchTransformerSpec(width=16, depth=1, num_heads=2, taps=3, **shape)
    return random_module(lambda: PatchTransformer(spec, linear(), rngs=param_keys(0)))


@pytest.mark.parametrize("shape", [VIDEO, AUDIO])
def test_an_untrained_model_sees_no_signal(shape):
    # The last layer starts at zero: x0_hat = 0, so eps = x_t / sigma.
    model, schedule = _model(shape), linear()
    for last in (model.codec.proj_out.kernel, model.codec.proj_out.bias):
        last[...] = jnp.zeros_like(last[...])
    x = jax.random.normal(jax.random.key(1), (2, *shape["sample_shape"]))
    t = jnp.array([10, 900])
    eps = nnx.jit(lambda model: model(x, t))(model)
    assert eps.shape == x.shape
    sigma = schedule.sigma(t).reshape(2, *[1] * (x.ndim - 1))
    np.testing.assert_allclose(eps, x / sigma, rtol=1e-5)


@pytest.mark.parametrize("shape", [VIDEO, AUDIO])
def test_every_frame_is_seen_by_every_other(shape):
    model = _model(shape)
    t = jnp.array([300])
    x = jax.random.normal(jax.random.key(3), (1, *shape["sample_shape"]))
    graphdef, params = nnx.split(model)

    @jax.jit
    def gradient(x):
        return jax.grad(lambda x: jnp.square(nnx.merge(graphdef, params)(x, t)[:, -1]).sum())(x)

    last = gradient(x)
    assert float(jnp.abs(last[:, 0]).max()) > 0


def test_a_wrong_patch_is_named():
    with pytest.raises(ValueError, match="patch"):
        _model({**VIDEO, "patch": (1, 3, 4)})
    with pytest.raises(ValueError, match="patch_width"):
        _model({**AUDIO, "patch_width": 4})


def test_loss_of_the_perfect_model_is_zero_and_of_none_is_the_datas_power():
    schedule = linear()
    x0 = jax.random.normal(jax.random.key(0), (4096, 6))
    sampler = TimeSampler(num_timesteps=1000, focus=0.5, low=100, high=200)

    def perfect(x_t, t):
        return (x_t - schedule.alpha(t)[:, None] * x0) / schedule.sigma(t)[:, None]

    loss, _ = noise_prediction(perfect, x0, jax.random.key(1), schedule, sampler, max_weight=2.0)
    assert float(loss) < 1e-6
    blind, by_level = noise_prediction(
        lambda x_t, t: x_t / schedule.sigma(t)[:, None],
        x0,
        jax.random.key(1),
        schedule,
        sampler,
        max_weight=1.0,  # min(1 / sigma^2, 1) is 1 everywhere: the plain error of x0
    )
    np.testing.assert_allclose(blind, jnp.square(x0).mean(), rtol=1e-3)
    np.testing.assert_allclose(by_level["x0_error/5"], 1.0, atol=0.1)


def test_time_sampler_focuses_and_checks():
    t = TimeSampler(num_timesteps=1000, focus=0.6, low=400, high=500)(jax.random.key(0), 20_000)
    inside = float(((t >= 400) & (t < 500)).mean())
    np.testing.assert_allclose(inside, 0.6 + 0.4 * 0.1, atol=0.015)
    assert int(t.min()) < 10
    assert int(t.max()) > 990
    with pytest.raises(ValueError, match="low=600, high=500"):
        TimeSampler(num_timesteps=1000, focus=0.5, low=600, high=500)
