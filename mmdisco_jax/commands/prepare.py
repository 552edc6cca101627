# SPDX-License-Identifier: Apache-2.0
"""`prepare`: writes the config's dataset, once; and the base models' fakes if asked."""

import json
from pathlib import Path

from mmdisco_jax import build
from mmdisco_jax.build import Config
from mmdisco_jax.commands.fakes import write_fakes
from mmdisco_jax.inputs.prepare import prepare


def run(config: Config, workdir: Path) -> None:
    """Prints a summary as JSON. `workdir` receives only generated fakes."""
    summary = prepare(config.data.name, build.data_dir(config), **config.data.options.to_dict())
    if config.fakes.num_samples:
        summary["fakes"] = write_fakes(config, workdir)
    print(json.dumps(summary, indent=2))
