# SPDX-License-Identifier: Apache-2.0
"""Registries: every entry can be imported, and is found by its place as by its name."""

import inspect
from typing import Any

import numpy as np
import pytest
from flax import nnx

from mmdisco_jax.base_models import BASE_MODELS
from mmdisco_jax.base_models.api import Base, made
from mmdisco_jax.codecs import CODECS
from mmdisco_jax.datasets import DATASETS
from mmdisco_jax.discriminator import DISCRIMINATORS
from mmdisco_jax.metrics import METRICS
from mmdisco_jax.nn.init import skeleton
from mmdisco_jax.porting.port import PORTS, Port
from mmdisco_jax.process import SCHEDULES
from mmdisco_jax.process.schedules import Schedule, from_betas
from mmdisco_jax.samplers import SAMPLERS
from mmdisco_jax.tasks import TASKS

REGISTRIES = {
    "bases": (BASE_MODELS, "tests.support.outside.base:PointwiseBase"),
    "codecs": (CODECS, "tests.support.outside.codec:Volume"),
    "datasets": (DATASETS, "tests.support.outside.dataset:RisingClips"),
    "discriminators": (DISCRIMINATORS, "tests.support.outside.discriminator:build"),
    "metrics": (METRICS, "tests.support.outside.metric:make"),
    "ports": (PORTS, "mmdisco_jax.text.clip:PORT"),
    "samplers": (SAMPLERS, "tests.support.outside.stepper:Euler"),
    "schedules": (SCHEDULES, "tests.contracts.test_registries:halving"),
    "tasks": (TASKS, "tests.support.outside.mode:run"),
}
OPTIONS = {"scaled_linear": {"num_timesteps": 1000, "beta_start": 0.0015, "beta_end": 0.0195}}


def halving(num_timesteps: int = 4) -> Schedule:
    """A schedule from outside the package: every step halves what is left of the signal."""
    settings = {"name": "tests.contracts.test_registries:halving", "num_timesteps": num_timesteps}
    return from_betas(np.full(num_timesteps, 0.5), settings)


@pytest.mark.parametrize(("registry", "outside"), REGISTRIES.values(), ids=REGISTRIES)
def test_names_places_and_components_from_outside(registry, outside):
    for name in registry.names():
        assert registry.get(name) is registry.get(registry.entries[name])
    assert registry.get(outside) is not None
    with pytest.raises(ValueError, match=f"unknown {registry.kind} 'nonsense': choose one of"):
        registry.get("nonsense")


@pytest.mark.parametrize("name", [*SCHEDULES.names(), "tests.contracts.test_registries:halving"])
def test_a_schedule_falls_and_is_rebuilt_from_its_settings(name):
    schedule = made(SCHEDULES, {"name": name, **OPTIONS.get(name, {})})
    levels = np.arange(schedule.num_timesteps)
    assert schedule.abar.dtype == np.float64 and np.all(np.diff(schedule.abar) < 0)
    alpha, sigma = schedule.alpha(levels), schedule.sigma(levels)  # pyright: ignore
    np.testing.assert_allclose(alpha**2 + sigma**2, 1, rtol=1e-6)
    np.testing.assert_allclose(schedule.abar_between(levels), schedule.abar, rtol=1e-12)
    snr = 0.5 * (np.log(schedule.abar) - np.log1p(-schedule.abar))
    np.testing.assert_allclose(schedule.level_between(snr), levels, atol=1e-6)
    again = made(SCHEDULES, schedule.settings)
    assert again.settings == schedule.settings and again.digest() == schedule.digest()


@pytest.mark.parametrize("name", [*DATASETS.names(), "tests.support.outside.dataset:RisingClips"])
def test_a_dataset_has_options_a_version_and_a_folder(name):
    builder: Any = DATASETS.get(name)
    assert builder.name == name or ":" in name
    assert inspect.isclass(builder.OPTIONS) and builder.VERSION and callable(builder.config)
    simulated = getattr(builder, "SIMULATED", False)
    assert isinstance(simulated, bool)
    if simulated:
        make: Any = builder.config
        assert make().name != make(num_train=3).name


@pytest.mark.parametrize("name", [*TASKS.names(), "tests.support.outside.mode:run"])
def test_a_mode_is_a_function_of_a_system_and_a_workdir(name):
    parameters = inspect.signature(TASKS.get(name)).parameters
    assert list(parameters)[:2] == ["system", "workdir"]
    assert TASKS.get(name).__doc__


@pytest.mark.parametrize("name", PORTS.names())
def test_a_port_makes_a_network_from_a_config(name):
    """An empty config.json means the defaults of the reference."""
    port = PORTS.get(name)
    assert isinstance(port, Port)
    spec = port.spec_of({})
    graphdef, abstract = skeleton(port.module, spec)
    assert isinstance(graphdef, nnx.GraphDef) and nnx.to_flat_state(abstract)
    with pytest.raises(ValueError):
        port.spec_of({"_class_name": "Nonsense", "model_type": "nonsense", "hidden_act": "cube"})


@pytest.mark.parametrize("name", BASE_MODELS.names())
def test_a_base_is_a_recipe(name):
    assert issubclass(BASE_MODELS.get(name), Base)
