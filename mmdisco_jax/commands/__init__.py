# SPDX-License-Identifier: Apache-2.0
"""One file per mode of launch.py: build, call, report."""

from mmdisco_jax.registry import Registry

COMMANDS = Registry(
    "mode",
    {
        "prepare": "mmdisco_jax.commands.prepare:run",
        "train": "mmdisco_jax.commands.train:run",
        "sample": "mmdisco_jax.commands.sample:run",
        "evaluate": "mmdisco_jax.commands.evaluate:run",
        "bench": "mmdisco_jax.commands.bench:run",
        "convert": "mmdisco_jax.commands.convert:run",
        "toy": "mmdisco_jax.commands.toy:run",
    },
)
