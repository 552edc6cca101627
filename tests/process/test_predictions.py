# SPDX-License-Identifier: Apache-2.0
"""Predictions: definitions, every cycle of conversions, and noising."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmdisco_jax.process.noising import TimeSampler, add_noise, draw_noise, mean_by_level
from mmdisco_jax.process.predictions import KINDS, convert
from mmdisco_jax.process.schedules import linear, scaled_linear

SCHEDULE = linear()
T = np.array([20, 300, 600, 850])


def _truth() -> tuple[dict[str, Any], Any, Any, Any]:
    """Every kind of a known signal and noise [4 3 2], and x_t, alpha, sigma."""
    x0, eps = np.random.default_rng(0).standard_normal((2, 4, 3, 2), dtype=np.float32)
    alpha, sigma = np.sqrt(SCHEDULE.abar[T]), np.sqrt(1 - SCHEDULE.abar[T])
    alpha, sigma = alpha.astype(np.float32), sigma.astype(np.float32)
    a, s = alpha[:, None, None], sigma[:, None, None]
    kinds = {"eps": eps, "x0": x0, "v": a * eps - s * x0, "score": -eps / s}
    return kinds, a * x0 + s * eps, alpha, sigma


@pytest.mark.parametrize(("source", "target"), list(itertools.product(KINDS, KINDS)))
def test_every_conversion_gives_the_definition(source, target):
    kinds, x_t, alpha, sigma = _truth()
    got = convert(kinds[source], source, target, x_t, alpha, sigma)
    np.testing.assert_allclose(got, kinds[target], atol=2e-4, rtol=2e-5)


@pytest.mark.parametrize("cycle", list(itertools.permutations(KINDS)))
def test_a_cycle_returns_to_its_start(cycle):
    kinds, x_t, alpha, sigma = _truth()
    value = kinds[cycle[0]]
    for source, target in itertools.pairwise([*cycle, cycle[0]]):
        value = convert(value, source, target, x_t, alpha, sigma)
    np.testing.assert_allclose(value, kinds[cycle[0]], atol=5e-4, rtol=5e-5)


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="unknown prediction 'noise': choose one of eps"):
        convert(jnp.zeros((1, 1)), "noise", "eps", jnp.zeros((1, 1)), jnp.ones(1), jnp.ones(1))


def test_noise_is_added_by_each_modality_s_schedule():
    schedules = {"audio": linear(), "video": scaled_linear(1000, 0.00085, 0.012)}
    x0 = {"audio": np.ones((4, 5), np.float32), "video": np.full((4, 2, 3), 2, np.float32)}
    eps = jax.tree.map(np.asarray, draw_noise(jax.random.key(1), x0))
    noisy = add_noise(x0, eps, jnp.asarray(T), schedules)
    for m, schedule in schedules.items():
        for i, t in enumerate(T):
            want = schedule.abar[t] ** 0.5 * x0[m][i] + (1 - schedule.abar[t]) ** 0.5 * eps[m][i]
            np.testing.assert_allclose(noisy[m][i], want, rtol=1e-5, atol=1e-6)
    assert not np.allclose(eps["audio"][:, :3], eps["video"][:, 0])


def test_mean_by_level_puts_each_sample_in_its_bin():
    t = jnp.array([0, 99, 100, 999])
    out = mean_by_level({"v": jnp.array([1.0, 3.0, 5.0, 7.0])}, t, 1000)
    assert float(out["v/0"]) == 2.0
    assert float(out["v/1"]) == 5.0
    assert float(out["v/9"]) == 7.0
    assert np.isnan(out["v/4"])


def test_the_focused_share_of_noise_levels():
    sampler = TimeSampler(num_timesteps=1000, focus=0.5, low=300, high=400)
    t = np.asarray(sampler(jax.random.key(2), 20_000))
    assert t.min() >= 0 and t.max() <= 999 and t.dtype == np.int32
    # Half, and a tenth of the other half; the standard error is 0.0035.
    assert np.mean((t >= 300) & (t < 400)) == pytest.approx(0.55, abs=0.015)
    flat = np.asarray(TimeSampler(num_timesteps=10)(jax.random.key(3), 20_000))
    np.testing.assert_allclose(np.bincount(flat, minlength=10) / 20_000, 0.1, atol=0.01)


@pytest.mark.parametrize(
    "options", [{"focus": 1.5}, {"focus": 0.5}, {"focus": 0.5, "low": 5, "high": 11}]
)
def test_impossible_focus_is_refused(options):
    with pytest.raises(ValueError, match=r"must be in 0\.\.1|need 0 <= low < high <= 10"):
        TimeSampler(num_timesteps=10, **options)
