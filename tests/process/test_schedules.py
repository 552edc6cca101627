# SPDX-License-Identifier: Apache-2.0
"""Noise schedules against closed forms and published values."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmdisco_jax.process import SCHEDULES
from mmdisco_jax.process.schedules import Schedule, cosine, linear, scaled_linear


def test_linear_is_the_product_of_its_betas():
    abar = linear(1000, 1e-4, 0.02).abar
    running, betas = 1.0, [1e-4 + (0.02 - 1e-4) * i / 999 for i in range(1000)]
    for i, beta in enumerate(betas):
        running *= 1 - beta
        assert abar[i] == pytest.approx(running, rel=1e-12)
    assert abar[0] == pytest.approx(0.9999, rel=1e-12)
    assert abar[999] == pytest.approx(4.0358e-5, rel=1e-4)


@pytest.mark.parametrize(
    ("make", "at_500", "at_800"), [(linear, 0.161, 0.0140), (scaled_linear, 0.276, 0.0369)]
)
def test_the_two_linear_schedules_of_latent_models_differ(make, at_500, at_800):
    """VideoCrafter2's betas, as its own code reads them (scaled) and as the official loop does."""
    abar = make(1000, 0.00085, 0.012).abar
    assert abar[500] == pytest.approx(at_500, abs=5e-4)
    assert abar[800] == pytest.approx(at_800, abs=5e-5)


def test_scaled_linear_interpolates_the_roots_of_its_betas():
    abar = scaled_linear(1000, 0.0015, 0.0195).abar
    roots = np.sqrt(1 - abar[1:] / abar[:-1])
    np.testing.assert_allclose(np.diff(roots), (0.0195**0.5 - 0.0015**0.5) / 999, rtol=1e-8)
    assert 1 - abar[0] == pytest.approx(0.0015)


def test_cosine_follows_its_curve_up_to_the_limit_on_beta():
    abar = cosine(1000).abar
    t = np.arange(1, 999)  # the last beta is limited to 0.999
    curve = np.cos((t / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    start = np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(abar[t - 1], curve / start, rtol=1e-9)
    assert 1 - abar[999] / abar[998] == pytest.approx(0.999)


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_alpha_and_sigma_keep_their_digits_near_the_clean_end(name):
    extra = {} if name == "cosine" else {"beta_start": 1e-4, "beta_end": 0.02}
    schedule = SCHEDULES.get(name)(num_timesteps=1000, **extra)
    t = jnp.arange(1000)
    alpha, sigma = np.asarray(schedule.alpha(t)), np.asarray(schedule.sigma(t))
    assert alpha.dtype == sigma.dtype == np.float32
    np.testing.assert_allclose(alpha.astype(np.float64) ** 2, schedule.abar, rtol=3e-7)
    # In float32 `1 - abar` would already be wrong by 6e-8 / 1e-4 = 6e-4 at t = 0.
    np.testing.assert_allclose(sigma.astype(np.float64) ** 2, 1 - schedule.abar, rtol=3e-7)


@pytest.mark.parametrize(
    "abar", [[0.5, 0.9], [1.0, 0.5], [0.5, 0.0], [], [[0.5]], [0.9, 0.9], [0.9, np.nan]]
)
def test_an_impossible_table_is_refused(abar):
    with pytest.raises(ValueError, match=r"must fall strictly inside \(0, 1\)"):
        Schedule(np.array(abar, np.float64))


def test_levels_between_have_a_log_alpha_between():
    schedule = linear()
    half = schedule.abar_between(np.array([9.5, 700.25]))
    log = np.log(schedule.abar)
    want = [0.5 * (log[9] + log[10]), 0.75 * log[700] + 0.25 * log[701]]
    np.testing.assert_allclose(np.log(half), want, rtol=1e-12)
    t = jnp.array([9.5, 700.25], jnp.float32)
    np.testing.assert_allclose(schedule.alpha(t) ** 2, half, rtol=1e-6)
    np.testing.assert_allclose(schedule.sigma(t) ** 2, 1 - half, rtol=1e-5)


def test_log_snr_and_level_are_inverse_at_both_ends_and_on_host_and_device():
    schedule = linear()
    t = np.array([0.0, 0.25, 3.5, 500.75, 998.5, 999.0])
    log_snr = schedule.log_snr(jnp.asarray(t, jnp.float32))
    np.testing.assert_allclose(schedule.level(log_snr), t, rtol=2e-5, atol=2e-5)
    abar = schedule.abar_between(t)
    exact = 0.5 * (np.log(abar) - np.log1p(-abar))
    np.testing.assert_allclose(log_snr, exact, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(schedule.level_between(exact), t, rtol=1e-9, atol=1e-9)
    whole = jnp.arange(1000)
    floating = schedule.sigma(whole.astype(jnp.float32))
    np.testing.assert_allclose(schedule.sigma(whole), floating, rtol=1e-5)
