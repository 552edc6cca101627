# SPDX-License-Identifier: Apache-2.0
"""`train`: trains what config.train.target names, and goes on where an earlier run stopped."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from mmdisco_jax import build, parallel
from mmdisco_jax.inputs.pipeline import make_train_iterator
from mmdisco_jax.inputs.windows import WindowSize
from mmdisco_jax.io import write_bytes
from mmdisco_jax.training.checkpoints import Checkpoints
from mmdisco_jax.training.loop import StoppedError
from mmdisco_jax.training.metrics_log import read_metrics
from mmdisco_jax.training.report import write_report
from mmdisco_jax.training.session import Task, train
from mmdisco_jax.training.state import TrainState
from mmdisco_jax.training.weights import save_weights

# These sections make a run what it is; others may change between two halves of it ...
_IDENTITY = ("seed", "data", "schedules", "codecs", "bases", "discriminator", "weights", "train")
# ... and so may these keys, most of which say where and when things are written.
_FREE = (
    *("data.dir", "data.in_memory", "data.num_workers", "data.prepare_workers"),
    *("train.log_every", "train.save_every", "train.keep", "train.restore"),
    # Younger than some checkpoints; another choice does not fit the state, and is refused so.
    "train.time_sampler",
)


def run(config: Any, workdir: Path) -> None:
    """Trains in `workdir` as a ConfigDict says, or goes on there from its last checkpoint.

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
        _train(config, workdir)
    except StoppedError as stop:
        print(stop, file=sys.stderr)
        raise SystemExit(128 + stop.signal) from stop


def _train(config: Any, workdir: Path) -> None:
    resolved = json.loads(config.to_json())
    mesh = parallel.make_mesh(config.mesh.to_dict())
    loss_fn, init, frozen = build.training_task(config)
    task = Task(
        loss_fn=loss_fn,
        init=init,
        frozen=frozen,
        optimizer=build.optimizer(config),
        ema_decay=config.train.ema_decay,
        seed=config.seed,
        start=build.start_params(config, init),
        num_microbatches=config.train.num_microbatches,
        memory=build.loss_memory(config),
    )
    source = build.training_examples(config)
    with Checkpoints(workdir / "checkpoints", resolved, keep=config.train.keep) as checkpoints:
        state = train(
            task,
            _batches(
                config,
                source,
                build.window(config, source),
                build.super_resolution_pairs(config),
            ),
            build.loop(config),
            mesh,
            workdir,
            checkpoints,
            restore=str(config.train.restore),
            free=_free(resolved),
            records=lambda position, n: _records(config, len(source), position, n),
        )
    _finish(state, config, mesh, workdir)


def _free(config: dict[str, Any]) -> tuple[str, ...]:
    """The config's keys that may change between two halves of a run."""
    sections = [name for name in config if name not in _IDENTITY]
    if config["train"]["target"] != build.SUPER_RESOLUTION:
        return (*_FREE, *sections)
    sections.remove("super_resolution")
    uses = ("weights", "sampler", "respacing", "frames_per_batch")
    return (*_FREE, *sections, *(f"super_resolution.{name}" for name in uses))


def _batches(
    config: Any, source: Any, window: WindowSize | None = None, draw: Any | None = None
) -> Any:
    """The iterator over this process's rows of the batches."""
    return make_train_iterator(
        source,
        batch_size=config.train.batch_size,
        seed=config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        flip_probability=build.flip_probability(config),
        window=window,
        draw=draw,
        num_workers=config.data.num_workers,
    )


class _Numbers:
    """A source whose record i says i."""

    def __init__(self, size: int):
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"video": np.zeros((1, 1, 2, 3), np.uint8), "audio": np.array([index])}


def _records(config: Any, num_records: int, position: Any, n: int) -> list[int]:
    """Indices of the records in this process's n-th batch after `position`."""
    numbers = _batches(config, _Numbers(num_records))
    numbers.set_state(position)
    batch = [next(numbers) for _ in range(n + 1)][-1]
    return batch["audio"][:, 0].tolist()


def _finish(state: TrainState, config: Any, mesh: Mesh, workdir: Path) -> None:
    """Writes what the run leaves for others: weights, config and report."""
    gather = jax.jit(lambda tree: tree, out_shardings=parallel.replicated(mesh))
    ema = jax.device_get(gather(state.ema))
    if jax.process_index():
        return
    text = json.dumps(json.loads(config.to_json()), indent=1, sort_keys=True)
    metadata = {
        "config": text,
        "target": config.train.target,
        "schedules": build.schedule_record(config),
        "seed": str(config.seed),
        "step": str(int(state.step)),
        "commit": _commit(),
    }
    if config.train.target == "discriminator":
        metadata["bases"] = json.dumps(build.base_digests(config))
    dtype = config.train.weights_dtype
    save_weights(workdir / "weights.safetensors", ema, metadata, dtype=dtype)
    write_bytes(workdir / "config.json", text.encode())
    write_report(workdir / "report.png", read_metrics(workdir), title=config.train.target)


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
