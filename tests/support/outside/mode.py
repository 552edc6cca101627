# SPDX-License-Identifier: Apache-2.0
"""A mode from outside: the size of the discriminator's pull on noise, written as JSON."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp

from mmdisco_jax.guidance.joint import residual
from mmdisco_jax.system import System


def run(system: System, workdir: Path) -> None:
    """Writes workdir/pull.json: the root mean square of each modality's residual."""
    x = {
        m: jax.random.normal(jax.random.key(i), (2, *shape))
        for i, (m, shape) in enumerate(system.shapes.items())
    }
    pulls = residual(system.log_ratio, system.schedules)(x, jnp.array([200, 700]), None)
    sizes = {m: float(jnp.sqrt(jnp.mean(r**2))) for m, r in pulls.items()}
    (workdir / "pull.json").write_text(json.dumps(sizes))
