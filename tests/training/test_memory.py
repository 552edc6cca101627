# SPDX-License-Identifier: Apache-2.0
"""With fsdp each device holds its part of all parameters once, also while they are written."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from mmdisco_jax.experiment import load_config
from mmdisco_jax.inputs.cache import write_cache
from mmdisco_jax.media.prepare import prepare
from mmdisco_jax.porting import weights
from mmdisco_jax.tasks import train
from tests.support import training_processes as processes
from tests.support.experiments import run_mode, system_of, write_random_weights
from tests.support.live_arrays import live_bytes

DEVICES, FAKES = 4, 512


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Any:
    """A discriminator on the features of two frozen bases, against generated fakes."""
    folder = tmp_path_factory.mktemp("bounce")
    config: Any = load_config("configs/bounce.py")
    config.data.dir = str(folder / "data")
    config.data.options.update(num_train=16, num_test=2)
    for section in (*config.bases.values(), config.discriminator):
        section.update(width=192, num_heads=2)
    config.bases.video.depth = config.bases.audio.depth = 1
    config.discriminator.tower_depth = config.discriminator.fusion_depth = 1
    config.train.update(
        num_steps=3, warmup_steps=1, batch_size=4, log_every=1, save_every=3, keep=1
    )
    config.train.objective.update(groups=2, shifts=1, denoising_weight=0.0, fakes="generated")
    config.mesh.update(data=1, fsdp=DEVICES)
    prepare("bounce", config.data.dir, **config.data.options)
    write_random_weights(config, folder)
    return config


def _measured(config: Any, folder: Path) -> None:
    """Trains, and notes the live bytes before each batch and at each tensor that is written."""
    noted: dict[str, list[dict[int, int]]] = {"steps": [], "writing": []}
    batches, stored = train.batches, weights._stored

    def measured_batches(*args: Any) -> Any:
        inner = batches(*args)

        class Measured:
            get_state, set_state = inner.get_state, inner.set_state

            def __next__(self) -> Any:
                noted["steps"].append(live_bytes())
                return next(inner)

        return Measured()

    def measured_stored(*args: Any) -> Any:
        found = stored(*args)
        noted["writing"].append(live_bytes())
        return found

    train.batches, weights._stored = measured_batches, measured_stored
    run_mode("train", config, folder)
    (folder / "noted.json").write_text(json.dumps(noted))


def write_noise(config: Any) -> None:
    """Fakes that take more memory than the parameters, were they kept on a device."""
    system = system_of(config)

    def make(first: int, last: int) -> dict[str, np.ndarray]:
        return {m: np.zeros((last - first, *s), np.float16) for m, s in system.shapes.items()}

    made_by = {"weights": system.base_digests, "schedules": system.schedule_digests}
    write_cache(config.weights.fakes, made_by, FAKES, make, shard_size=FAKES)


def sizes(config: Any) -> tuple[int, int]:
    """Bytes of all parameters of a training, and of a batch with its fakes."""
    system = system_of(config)
    heads = jax.eval_shape(system.discriminator[1], jax.random.key(0))
    bases = [jax.eval_shape(init, jax.random.key(0)) for _, init in system.definitions.values()]
    bytes_of = lambda tree: sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))  # noqa: E731
    clip = config.clip
    pixels = int(clip.seconds * clip.fps) * clip.height * clip.width * 3
    rows = pixels + 2 * int(clip.seconds * clip.sample_rate_hz)
    rows += 2 * sum(int(np.prod(shape)) for shape in system.shapes.values())
    # Parameters, their average, and two moments of them.
    return 4 * bytes_of(heads) + bytes_of(bases), config.train.batch_size * rows


@pytest.mark.slow
def test_each_device_holds_its_part_once(config, tmp_path):
    config = config.copy_and_resolve_references()
    config.weights.fakes = str(tmp_path / "fakes")
    write_noise(config)
    config.train.init_from = config.weights.discriminator
    assert processes.call(_measured, config, tmp_path, devices=DEVICES) == 0
    noted = json.loads((tmp_path / "noted.json").read_text())
    whole, batch = sizes(config)
    part = whole / DEVICES
    most = {name: max(max(row.values()) for row in rows[1:]) for name, rows in noted.items()}
    print(f"parameters {whole}, a quarter {part}, a batch {batch}; most on a device: {most}")
    assert 2 * FAKES * int(np.prod(system_of(config).shapes["video"])) > whole
    for row in noted["steps"][1:]:
        assert max(row.values()) < 1.1 * part + 3 * batch / DEVICES
    assert len(noted["writing"]) > 20
    for row in noted["writing"]:
        assert max(row.values()) < 1.1 * part + 3 * batch / DEVICES
