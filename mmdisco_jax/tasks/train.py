# SPDX-License-Identifier: Apache-2.0
"""`train`: trains what config.train.target names, and resumes where an earlier run stopped."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmdisco_jax import parallel
from mmdisco_jax.base_models.api import schedule_record
from mmdisco_jax.inputs.degradations import DegradationSpec, RandomPairs
from mmdisco_jax.inputs.pipeline import make_train_iterator
from mmdisco_jax.inputs.windows import WindowSize
from mmdisco_jax.io import write_bytes
from mmdisco_jax.locks import one_owner
from mmdisco_jax.losses import (
    DISCRIMINATOR,
    SUPER_RESOLUTION,
    require_super_resolution,
    training_loss,
)
from mmdisco_jax.porting.weights import load_weights, read_metadata, save_weights
from mmdisco_jax.provenance import Record, announce, differences
from mmdisco_jax.sections import OBJECTIVE_STEPS, Training
from mmdisco_jax.system import System
from mmdisco_jax.tasks.latents import flip_probability, training_examples
from mmdisco_jax.tasks.records import training_record
from mmdisco_jax.training.checkpoints import Checkpoints, Restore
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
    *("data.prepared", "train.on_new_data"),
    # Younger than some checkpoints; another choice does not fit the state, and is refused so.
    "train.time_sampler",
)
# The length of a training, and what grows with it where it is given as a share.
_RAISED = (
    "train.num_steps",
    "train.warmup_steps",
    *(f"train.objective.{k}" for k in OBJECTIVE_STEPS),
)
# Files, which the record of a checkpoint compares by their contents: they may be moved.
_BY_CONTENTS = ("data.latents", "data.options.folder", "weights", "train.init_from")


@one_owner
def run(system: System, workdir: Path) -> None:
    """Trains `train.target` in `workdir`, or resumes there from the last checkpoint.

    Leaves `checkpoints/`, `metrics.jsonl`, TensorBoard events, and at the end `weights.safetensors`
    (the moving average), `config.json` and `report.png`. The same command resumes: the loss of
    every step and the final numbers are those of an uninterrupted run. Digests of the data and of
    all weights are taken at the start, kept with the checkpoints and compared; the finished weights
    carry them. A larger `train.num_steps` goes on where the training ended, with its optimizer.

    Raises:
      CheckpointError: the checkpoints in `workdir` are damaged, of another config, of other data
        (unless `train.on_new_data` is "continue") or other weights, or unwritable.
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
    record = training_record(system)
    announce(record)
    mesh = parallel.make_mesh({"data": experiment.mesh.data, "fsdp": experiment.mesh.fsdp})
    system = System(experiment, mesh)  # so that frozen parameters are read into their shardings
    loss = training_loss(system, train_settings.target)
    task = Task(
        loss_fn=loss.loss_fn,
        init=loss.init,
        frozen=loss.frozen,
        optimizer=optimizer(system),
        ema_decay=train_settings.ema_decay,
        seed=experiment.seed,
        start=start_params(system, loss.init),
        rows=loss.rows,
        num_microbatches=train_settings.num_microbatches,
        history=loss.history,
    )
    source = training_examples(system)
    if not jax.process_index():
        print(schedule_note(train_settings), file=sys.stderr)
    keep = train_settings.keep
    with Checkpoints(workdir / "checkpoints", resolved, keep=keep, made_by=record) as checkpoints:
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
            restore=Restore(
                which=str(train_settings.restore),
                free=free_keys(resolved),
                by_contents=_BY_CONTENTS,
                raised=_RAISED,
                new_data=_new_data(train_settings.on_new_data),
            ),
            records=lambda position, n: _records(system, len(source), position, n),
        )
        record, step = checkpoints.made_by, checkpoints.restored_step
    _finish(state, system, workdir, record, trained=step != int(state.step))


def _new_data(choice: str) -> bool:
    """Whether `train.on_new_data` lets a training go on with other data."""
    if choice not in ("refuse", "continue"):
        raise ValueError(f"train.on_new_data is {choice!r}: choose one of refuse, continue.")
    return choice == "continue"


def schedule_note(settings: Training) -> str:
    """What begins when in this training, in a line: shares of its length as numbers of steps."""
    parts = [f"the learning rate rises to step {settings.warmup_steps}"]
    if settings.target == DISCRIMINATOR:
        spec = settings.objective
        if spec.level_warmup_steps:
            parts.append(f"all noise levels from step {spec.level_warmup_steps}")
        if spec.denoising_weight:
            parts.append(f"the denoising loss from step {spec.denoising_from}")
    return f"training {settings.target}, {settings.num_steps} steps: {', '.join(parts)}."


def optimizer(system: System) -> Any:
    """The optimizer of `config.train`."""
    train = system.experiment.train
    return adam(
        learning_rate=train.learning_rate,
        num_steps=train.num_steps,
        warmup_steps=int(train.warmup_steps),
        final_fraction=train.final_fraction,
        b2=train.b2,
        clip_norm=train.clip_norm,
        weight_decay=train.weight_decay,
    )


def start_params(system: System, init: Any) -> Callable[[Any], Params] | None:
    """A function (shardings) -> parameters of the file `train.init_from`; None if it is not set."""
    path = system.experiment.train.init_from
    if not path:
        return None
    return lambda shardings: load_weights(path, jax.eval_shape(init, jax.random.key(0)), shardings)


def free_keys(config: dict[str, Any]) -> tuple[str, ...]:
    """Keys of the config that may change between two halves of a run."""
    sections = [name for name in config if name not in _IDENTITY]
    target = config["train"]["target"]
    if target != DISCRIMINATOR:
        sections.append("train.objective")  # of a discriminator only
    if target != SUPER_RESOLUTION:
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


def _finish(
    state: TrainState, system: System, workdir: Path, record: Record, *, trained: bool
) -> None:
    """Writes the results of the run: weights, config and report.

    Weights of a training that had ended before are left as they are, for what was made with them
    names them by their contents, of which the version of the code is a part.
    """
    experiment, target = system.experiment, system.experiment.train.target
    path, dtype = workdir / "weights.safetensors", experiment.train.weights_dtype
    metadata = _metadata(system, int(state.step), record)
    if not trained and _is_written(path, metadata):
        return
    if jax.process_index():  # has parts of the average, which the first process writes
        save_weights(path, state.ema, {}, dtype=dtype, write=False)
        return
    save_weights(path, state.ema, metadata, dtype=dtype)
    write_bytes(workdir / "config.json", metadata["config"].encode())
    write_report(workdir / "report.png", read_metrics(workdir), title=target)
    print(f"weights of {target}: {path}; look at {workdir / 'report.png'}")


def _metadata(system: System, step: int, record: Record) -> dict[str, str]:
    experiment, target = system.experiment, system.experiment.train.target
    # A base of one modality has one schedule; a joint base and a discriminator have all.
    base = system.bases.get(target)
    metadata = {
        "config": json.dumps(experiment.resolved, indent=1, sort_keys=True),
        "target": target,
        "schedules": schedule_record(base.schedules if base else system.schedules),
        "seed": str(experiment.seed),
        "step": str(step),
        "commit": record["commit"],
        "made_by": json.dumps(record, sort_keys=True),
    }
    if target == DISCRIMINATOR:  # as they were at the start: the files may be others by now
        weights = record["weights"]
        bases = {name: weights[name]["sha256"] for name in system.bases if name in weights}
        metadata["bases"] = json.dumps(bases)
    return metadata


def _is_written(path: Path, metadata: Mapping[str, str]) -> bool:
    """Whether a whole weight file says the same of itself, apart from the version of the code."""
    try:
        found = read_metadata(path)
        made_by = [json.loads(some["made_by"]) for some in (found, metadata)]
    except (FileNotFoundError, ValueError, KeyError):
        return False
    same = all(found.get(key) == metadata[key] for key in ("target", "schedules", "seed", "step"))
    return same and not differences(*made_by, ignored=("earlier",))
