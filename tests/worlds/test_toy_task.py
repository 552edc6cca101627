# SPDX-License-Identifier: Apache-2.0
"""The toy experiment, shrunk: guided pairs are nearer to the true joint than independent ones."""

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import norm

from mmdisco_jax.experiment import load_config
from mmdisco_jax.tasks import toy
from tests.support.experiments import run_mode, system_of


def _shrunk(worlds: tuple[str, ...] = ("pairs",)):
    config: Any = load_config("configs/toy.py")
    config.train.num_steps = 150
    config.toy.update(num_samples=500, num_reference=1000, num_replicates=60, num_steps=25)
    with config.unlocked():
        config.toy.worlds = worlds
        config.toy.losses = {"both": {"cross_entropy": 1.0, "denoising": 1.0}}
    return config


@pytest.mark.slow
def test_guided_pairs_are_nearer_to_the_truth(tmp_path):
    results = run_mode("toy", _shrunk(), tmp_path)
    assert json.loads((tmp_path / "toy.json").read_text()) == results
    assert min(Image.open(tmp_path / "toy.png").size) > 200
    assert list(results) == ["pairs, in-domain", "pairs, out-of-domain"]
    for row in results.values():
        assert all(x["low"] <= x["value"] <= x["high"] for x in row.values())
        assert row["both"]["high"] < row["independent"]["low"]
        # The perfect discriminator is at the floor: what the sampler itself costs is nothing.
        assert abs(row["exact log-ratio"]["value"]) < 0.01
        assert abs(row["data"]["value"]) < 0.01


def test_energy_distance_of_two_gaussians():
    """Between N(0, 1) and N(mu, 1) in one dimension, against the integral 2 int (F - G)^2."""
    rng = np.random.default_rng(0)
    mu, x = 1.0, np.linspace(-8, 9, 20_001)
    a, b = rng.standard_normal((2500, 1)), rng.standard_normal((2500, 1)) + mu
    integral = 2 * np.trapezoid((norm.cdf(x) - norm.cdf(x - mu)) ** 2, x)
    got = toy.energy_distance(a, b, replicates=40, seed=0)
    assert got["low"] < got["value"] < got["high"]
    assert got["value"] == pytest.approx(integral, rel=0.15)


def test_an_unknown_world_is_named():
    settings = system_of(_shrunk(("spiral",))).experiment.toy
    assert settings is not None
    with pytest.raises(ValueError, match="unknown toy world 'spiral': choose from ring"):
        toy.problems(settings)
