# SPDX-License-Identifier: Apache-2.0
"""Experiments from configs for tests: systems, modes by name, and random weights in files."""

from pathlib import Path
from typing import Any

import jax

from mmdisco_jax.experiment import Experiment
from mmdisco_jax.porting.weights import save_weights
from mmdisco_jax.system import System
from mmdisco_jax.tasks import TASKS
from tests.support.randoms import random_params


def system_of(config: Any) -> System:
    """The assembled experiment of a config as it is now."""
    return System(Experiment.from_config(config))


def run_mode(mode: str, config: Any, workdir: Path) -> Any:
    """A mode of the command line; a function that a new process can be started with."""
    return TASKS.get(mode)(system_of(config), Path(workdir))


def write_random_weights(config: Any, folder: Path) -> None:
    """Files of random weights for whatever the experiment loads, named in the config."""
    system = system_of(config)
    inits = {name: init for name, (_, init) in system.definitions.items()}
    if system.experiment.discriminator:
        inits["discriminator"] = system.discriminator[1]
    for seed, (name, init) in enumerate(inits.items()):
        config.weights[name] = str(folder / f"{name}.safetensors")
        params = random_params(jax.eval_shape(init, jax.random.key(0)), seed)
        save_weights(config.weights[name], params, {})
    large = system.experiment.super_resolution
    if large:
        config.super_resolution.weights = str(folder / "super_resolution.safetensors")
        abstract = jax.eval_shape(large.definition()[1], jax.random.key(0))
        save_weights(config.super_resolution.weights, random_params(abstract, 9), {})
