# SPDX-License-Identifier: Apache-2.0
"""Fakes of the base models: unguided samples as latents, in shards, for training the discriminator.

The two modalities of a sample are independent by construction, and training pairs any sound with
any picture, so n samples give n^2 fake pairs.
"""

import hashlib
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from mmdisco_jax import build
from mmdisco_jax.build import Config
from mmdisco_jax.export.clips import shard_path, write_shard

VARIANT = "independent"


def write_fakes(config: Config, workdir: Path) -> dict:
    """Writes `config.fakes.num_samples` latents under workdir/fakes; goes on where it stopped."""
    folder = workdir / "fakes"
    made_by = _made_by(config)
    note = folder / "made_by.json"
    if note.exists() and json.loads(note.read_text()) != made_by:
        raise ValueError(
            f"{folder} holds fakes of other base models or settings: delete it, or use another "
            "workdir."
        )
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(made_by, indent=1))
    run = build.sampler(config, VARIANT)
    _, params = build.bases(config)
    size, total = config.fakes.batch_size, config.fakes.num_samples
    for first in tqdm(range(0, total, size), unit="shard"):
        if shard_path(folder, first).exists():
            continue
        latents = run(params, None, config.fakes.first_index + jnp.arange(first, first + size))
        write_shard(folder, first, {m: np.asarray(x, np.float16) for m, x in latents.items()})
    return {"directory": str(folder), "samples": total}


def _made_by(config: Config) -> dict:
    digests = {
        m: hashlib.sha256(Path(config.weights[m]).read_bytes()).hexdigest() for m in config.bases
    }
    settings = json.loads(build.variant_settings(config, VARIANT).to_json_best_effort())
    return {"weights": digests, "sample": settings, "fakes": config.fakes.to_dict()}
