# SPDX-License-Identifier: Apache-2.0
"""`train`: trains what config.train.target names, and resumes where an earlier run stopped."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from mmdisco_jax import parallel
from mmdisco_jax.base_models.api import schedule_record
from mmdisco_jax.inputs.degradations import DegradationSpec, RandomPairs
from mmdisco_jax.inputs.pipeline import make_train_iterator
from mmdisco_jax.inputs.windows import WindowSize
from mmdisco_jax.io import write_bytes
from mmdisco_jax.losses import (
    DISCRIMINATOR,
    SUPER_RESOLUTION,
    require_super_resolution,
    training_loss,
)
from mmdisco_jax.porting.weights import load_weights, save_weights
from mmdisco_jax.system import System
from mmdisco_jax.tasks.latents import flip_probability, training_examples
from mmdisco_jax.training.checkpoints import Checkpoints
from mmdisco_jax.training.loop import LoopSpec, StoppedError
from mmdisco_jax.training.metrics_log import read_metrics
from mmdisco_jax.training.optimizer import adam
from mmdisco_jax.training.report import write_report
from mmdisco_jax.training.session import Task, train
from mmdisco_jax.training.state import TrainState
from mmdisco_jax.types import Params

# These sections make a run what it is; others may change between two halves of it ...
_IDENTITY = ("seed", "data", "clip", "bases", "discriminator", "weights", "train")
# ... and so may these keys, most of which say where and when things are written.
_FREE = (
    *("data.dir", "data.in_memory", "data.num_workers", "data.prepare_workers"),
    *("train.log_every", "train.save_every", "train.keep", "train.restore"),
    # Younger than some checkpoints; another choice does not fit the state, and is refused so.
    "train.time_sampler",
)


def run(system: System, workdir: Path) -> None:
    """Trains `train.target` in `workdir`, or resumes there from the last checkpoint.

    Leaves `checkpoints/`, `metrics.jsonl`, TensorBoard events, and at the end `weights.safetensors`
    (the moving average), `config.json` and `report.png`. The same command resumes: the loss of
    every step and the final numbers are those of an uninterrupted run.

    Raises:
      CheckpointError: the checkpoints in `workdir` are damaged, of another config, or unwritable.
      NotFiniteError: the loss or a gradient is nan or infinite.
      SystemExit: 128 + n after signal n, once a checkpoint is written.
    """
    workdir = Path(workdir)
    try:
        _train(system, workdir)
    except StoppedError as stop:
        print(stop, file=sys.stderr)
        raise SystemExit(128 + stop.signal) from stop


def _train(system: System, workdir: Path) -> None:
    experiment, train_settings = system.experiment, system.experiment.train
    resolved = dict(experiment.resolved)
    mesh = parallel.make_mesh({"data": experiment.mesh.data, "fsdp": experiment.mesh.fsdp})
    loss = training_loss(system, train_settings.target)
    task = Task(
        loss_fn=loss.loss_fn,
        init=loss.init,
        frozen=loss.frozen,
        optimizer=optimizer(system),
        ema_decay=train_settings.ema_decay,
        seed=experiment.seed,
        start=start_params(system, loss.init),
        num_microbatches=train_settings.num_microbatches,
        history=loss.history,
    )
    source = training_examples(system)
    keep = train_settings.keep
    with Checkpoints(workdir / "checkpoints", resolved, keep=keep) as checkpoints:
        state = train(
            task,
            batches(system, source),
            LoopSpec(
                num_steps=train_settings.num_steps,
                log_every=train_settings.log_every,
                save_every=train_settings.save_every,
            ),
            mesh,
            workdir,
            checkpoints,
            restore=str(train_settings.restore),
            free=free_keys(resolved),
            records=lambda position, n: _records(system, len(source), position, n),
        )
    _finish(state, system, mesh, workdir)


def optimizer(system: System) -> Any:
    """The optimizer of `config.train`."""
    train = system.experiment.train
    return adam(
        learning_rate=train.learning_rate,
        num_steps=train.num_steps,
        warmup_steps=train.warmup_steps,
        final_fraction=train.final_fraction,
        b2=train.b2,
        clip_norm=train.clip_norm,
        weight_decay=train.weight_decay,
    )


def start_params(system: System, init: Any) -> Params | None:
    """Parameters of the file `train.init_from`; None if it is not set."""
    path = system.experiment.train.init_from
    return load_weights(path, jax.eval_shape(init, jax.random.key(0))) if path else None


def free_keys(config: dict[str, Any]) -> tuple[str, ...]:
    """Keys of the config that may change between two halves of a run."""
    sections = [name for name in config if name not in _IDENTITY]
    if config["train"]["target"] != SUPER_RESOLUTION:
        return (*_FREE, *sections)
    sections.remove("super_resolution")
    uses = ("weights", "sampler", "respacing", "frames_per_batch")
    return (*_FREE, *sections, *(f"super_resolution.{name}" for name in uses))


def batches(system: System, source: Any) -> Any:
    """Iterator over this process's rows of the training batches."""
    return _iterator(system, source, system.window(source), super_resolution_pairs(system))


def _iterator(
    system: System, source: Any, window: WindowSize | None = None, draw: Any | None = None
) -> Any:
    experiment = system.experiment
    return make_train_iterator(
        source,
        batch_size=experiment.train.batch_size,
        seed=experiment.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        flip_probability=flip_probability(experiment.data.flip),
        window=window,
        draw=draw,
        num_workers=experiment.data.num_workers,
    )


def super_resolution_pairs(system: System) -> RandomPairs | None:
    """Transform from clips to training pairs, where super-resolution is trained."""
    if system.experiment.train.target != SUPER_RESOLUTION:
        return None
    if system.experiment.data.latents:
        raise ValueError(
            "super-resolution is trained on frames, not on latents: set config.data.latents=''."
        )
    model = require_super_resolution(system)
    pairs = dict(model.pairs)
    count = pairs.pop("frames_per_clip", 1)
    spec = DegradationSpec(high_size=model.high_size, low_size=model.low_size, **pairs)
    return RandomPairs(spec=spec, frames_per_clip=count)


class _Numbers:
    """A source whose record i holds the number i."""

    def __init__(self, size: int):
        self._size = size
        self.metadata: dict[str, Any] = {}

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"video": np.zeros((1, 1, 2, 3), np.uint8), "audio": np.array([index])}


def _records(system: System, num_records: int, position: Any, n: int) -> list[int]:
    """Indices of the records in this process's n-th batch after `position`."""
    numbers = _iterator(system, _Numbers(num_records))
    numbers.set_state(position)
    batch = [next(numbers) for _ in range(n + 1)][-1]
    return batch["audio"][:, 0].tolist()


def _finish(state: TrainState, system: System, mesh: Mesh, workdir: Path) -> None:
    """Writes the results of the run: weights, config and report."""
    gather = jax.jit(lambda tree: tree, out_shardings=parallel.replicated(mesh))
    ema = jax.device_get(gather(state.ema))
    if jax.process_index():
        return
    experiment, target = system.experiment, system.experiment.train.target
    text = json.dumps(experiment.resolved, indent=1, sort_keys=True)
    # A base of one modality has one schedule; a joint base and a discriminator have all.
    base = system.bases.get(target)
    metadata = {
        "config": text,
        "target": target,
        "schedules": schedule_record(base.schedules if base else system.schedules),
        "seed": str(experiment.seed),
        "step": str(int(state.step)),
        "commit": _commit(),
    }
    if target == DISCRIMINATOR:
        metadata["bases"] = json.dumps(system.base_digests)
    dtype = experiment.train.weights_dtype
    save_weights(workdir / "weights.safetensors", ema, metadata, dtype=dtype)
    write_bytes(workdir / "config.json", text.encode())
    write_report(workdir / "report.png", read_metrics(workdir), title=target)


def _commit() -> str:
    """The checkout's commit, with "-dirty" if files differ from it; "unknown" outside one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return "unknown"
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
