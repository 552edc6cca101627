# SPDX-License-Identifier: Apache-2.0
"""Modes of the command line, as functions of a System: `run(system, workdir)`."""

from mmdisco_jax.registry import Registry

TASKS = Registry(
    "mode",
    {
        "prepare": "mmdisco_jax.tasks.prepare:run",
        "train": "mmdisco_jax.tasks.train:run",
        "sample": "mmdisco_jax.tasks.sample:run",
        "evaluate": "mmdisco_jax.tasks.evaluate:run",
        "bench": "mmdisco_jax.tasks.bench:run",
        "convert": "mmdisco_jax.tasks.convert:run",
        "toy": "mmdisco_jax.tasks.toy:run",
    },
)
