# SPDX-License-Identifier: Apache-2.0
"""The discriminator's losses on a correlated Gaussian, where their minima are known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mmdisco_jax.discriminator.losses import best_scale, denoising
from mmdisco_jax.guidance.joint import residual
from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.process.noising import add_noise, draw_noise
from mmdisco_jax.process.schedules import linear
from mmdisco_jax.worlds.toy.discriminator import ToyDiscriminator, ToyDiscriminatorSpec
from mmdisco_jax.worlds.toy.mixtures import ORDER, Mixture, exact_bases, exact_log_ratio
from mmdisco_jax.worlds.toy.training import Problem, loss, trainer

SCHEDULES = {m: linear() for m in ORDER}
RHO = 0.8


def _gaussian(rho) -> Mixture:
    return Mixture(jnp.zeros(1), jnp.zeros((1, 2)), jnp.ones((1, 2)), jnp.reshape(rho, (1,)))


PROBLEM = Problem(_gaussian(RHO), _gaussian(RHO))


@jax.jit
def _noisy_pairs(t: jax.Array):
    """Pairs at the levels t [b], and their noise."""
    x0 = PROBLEM.world.sample(jax.random.key(8), len(t))
    eps = draw_noise(jax.random.key(9), x0)
    return add_noise(x0, eps, t, SCHEDULES), eps


def _trained(*, steps: int, batch_size: int, **weights: float):
    """The log-ratio learned with these loss weights."""
    spec = ToyDiscriminatorSpec(width=32, depth=2, num_waves=1)
    graphdef, _ = nnx.split(nnx.eval_shape(lambda: ToyDiscriminator(spec, rngs=param_keys(0))))

    def log_ratio(params):
        return lambda x, t, cond: nnx.merge(graphdef, params)(x, t, cond)

    def init(key):
        return nnx.split(ToyDiscriminator(spec, rngs=param_keys(key)))[1]

    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, steps))
    loss_fn = loss(weights, log_ratio, SCHEDULES, batch_size)
    train = jax.jit(trainer(loss_fn, init, optimizer, num_steps=steps, ema_decay=0.98))
    return log_ratio(train(PROBLEM, jax.random.key(0)))


def test_cross_entropy_converges_to_the_analytic_logit():
    h = _trained(steps=1500, batch_size=1024, cross_entropy=1.0, denoising=0.0)
    exact = exact_log_ratio(*PROBLEM, SCHEDULES)
    t = jnp.asarray(np.random.default_rng(0).integers(0, 1000, 4000))
    x, _ = _noisy_pairs(t)
    learned, true = (np.asarray(jax.jit(f)(x, t, None)) for f in (h, exact))
    assert np.corrcoef(learned, true)[0, 1] > 0.99
    assert np.polyfit(true, learned, 1)[0] == pytest.approx(1, abs=0.1)


def test_denoising_converges_to_the_true_residual():
    h = _trained(steps=800, batch_size=512, cross_entropy=0.0, denoising=1.0)
    exact = exact_log_ratio(*PROBLEM, SCHEDULES)
    t = jnp.asarray(np.random.default_rng(0).integers(0, 1000, 4000))
    x, eps = _noisy_pairs(t)
    learned, true = (jax.jit(residual(f, SCHEDULES))(x, t, None) for f in (h, exact))
    scale = best_scale(learned, eps, exact_bases(PROBLEM.base, SCHEDULES)(x, t, None))
    for m in ORDER:
        correlation = np.corrcoef(np.asarray(learned[m])[:, 0], np.asarray(true[m])[:, 0])[0, 1]
        assert correlation > 0.99
        assert float(scale[m]) == pytest.approx(1, abs=0.1)


def test_the_least_denoising_loss_is_the_true_residual_s():
    """Among log-ratios of Gaussians of any correlation, the world's own wins, by its own length."""
    level = 400
    t = jnp.full(200_000, level)
    x, eps = _noisy_pairs(t)
    eps_base = exact_bases(PROBLEM.base, SCHEDULES)(x, t, None)

    @jax.jit
    def value(rho, x, t, eps, eps_base):  # as constants, XLA would fold them for seconds
        h = exact_log_ratio(_gaussian(rho), PROBLEM.base, SCHEDULES)
        return denoising(residual(h, SCHEDULES)(x, t, None), eps, eps_base)[0]

    tried = [0.6, 0.7, 0.75, 0.8, 0.85, 0.9]
    values = [float(value(rho, x, t, eps, eps_base)) for rho in tried]
    assert tried[int(np.argmin(values))] == RHO
    # r* = sigma (I - covariance^-1) x up to sign, so min = -E |r*|^2 in closed form.
    abar = SCHEDULES["audio"].abar[level]
    covariance = np.array([[1, RHO * abar], [RHO * abar, 1]])
    gap = np.linalg.inv(covariance) - np.eye(2)
    least = -(1 - abar) * np.trace(gap @ covariance @ gap)
    assert min(values) == pytest.approx(least, rel=0.03)


def test_the_denoising_gradient_is_that_of_finite_differences():
    """Second order: the loss differentiates through the input gradient of the log-ratio."""
    x = {m: jnp.array([[0.3], [-1.0]]) + i for i, m in enumerate(ORDER)}
    t, zero = jnp.array([100, 700]), {m: jnp.zeros((2, 1)) for m in ORDER}
    eps = {m: jnp.array([[0.5], [1.5]]) for m in ORDER}

    def value(w):
        def h(pair, t, cond):
            return jnp.tanh(w[0] * pair["audio"] * pair["video"] + w[1] * pair["audio"])[:, 0]

        return denoising(residual(h, SCHEDULES)(x, t, None), eps, zero)[0]

    w = jnp.array([0.4, -0.3])
    gradient, step = jax.grad(value)(w), 1e-2
    for i in range(2):
        e = jnp.zeros(2).at[i].set(step)
        assert float(gradient[i]) == pytest.approx(
            float(value(w + e) - value(w - e)) / (2 * step), rel=1e-2
        )


def test_no_loss_is_refused():
    exact = exact_log_ratio(*PROBLEM, SCHEDULES)
    with pytest.raises(ValueError, match="needs a loss of positive weight"):
        loss({"cross_entropy": 0.0, "denoising": 0.0}, lambda params: exact, SCHEDULES, 4)
