# SPDX-License-Identifier: Apache-2.0
"""A training small enough to be killed often: two layers, numbered records, the real pipeline."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mmdisco_jax import parallel
from mmdisco_jax.inputs.pipeline import make_train_iterator
from mmdisco_jax.parallel import make_mesh, named_leaves
from mmdisco_jax.process.loss_aware_sampling import LossSecondMoment
from mmdisco_jax.training.checkpoints import Checkpoints
from mmdisco_jax.training.loop import LoopSpec, StoppedError
from mmdisco_jax.training.optimizer import adam
from mmdisco_jax.training.session import Task, train

WIDTH, HIDDEN, BATCH = 64, 256, 16
CONFIG = {"seed": 1, "train": {"num_steps": 12, "log_every": 4}}


class Records:
    """Record i: noise drawn from i, whose last number is i."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        sound = np.random.default_rng(index).integers(-9000, 9000, WIDTH).astype(np.int16)
        sound[-1] = index
        return {"video": np.zeros((1, 1, 1, 3), np.uint8), "audio": sound}


class Batches:
    """The pipeline, with something that happens before batch `at` (1 is the first)."""

    def __init__(self, at: int = 0, happens: Callable[[dict], dict] = dict):
        self._inner = make_train_iterator(
            Records(),
            batch_size=BATCH,
            seed=3,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        self._at, self._happens, self.count = at, happens, 0

    def __next__(self) -> dict[str, np.ndarray]:
        self.count += 1
        batch = next(self._inner)
        batch = {"x": (batch["audio"] / 9000).astype(np.float32), "index": batch["audio"][:, -1]}
        return self._happens(batch) if self.count == self._at else batch

    def get_state(self) -> Any:
        return self._inner.get_state()

    def set_state(self, state: Any) -> None:
        self._inner.set_state(state)
        self.count = state["next_index"]


def _loss(params, frozen, batch, key, step, history):
    x = batch["x"]
    hidden = jnp.tanh((x + 0.1 * jax.random.normal(key, x.shape)) @ params["first"])
    error = jnp.square(hidden @ params["second"] + frozen["offset"] - x).mean(-1)
    half = (batch["index"] % 2)[:, None] == jnp.arange(2)
    bins = (half * error[:, None]).sum(0) / half.sum(0)
    return error.mean(), {"error/0": bins[0], "error/1": bins[1]}, history


LEVELS = LossSecondMoment(num_timesteps=4, num_losses=3)


def _remembering_loss(params, frozen, batch, key, step, history):
    """Of rows whose loudness is drawn by its earlier losses."""
    t, weights = LEVELS.draw(history, key, len(batch["x"]))
    hidden = jnp.tanh((1 + t)[:, None] * batch["x"] @ params["first"])
    error = jnp.square(hidden @ params["second"] + frozen["offset"] - batch["x"]).mean(-1)
    loss = (weights * error).mean()
    return loss, {"weights": weights.mean()}, LEVELS.update(history, t, error)


def task(num_steps: int = 12, *, remembers: bool = False) -> Task:
    def init(key):
        first, second = jax.random.split(key)
        return {
            "first": jax.random.normal(first, (WIDTH, HIDDEN)) / WIDTH**0.5,
            "second": jax.random.normal(second, (HIDDEN, WIDTH)) / HIDDEN**0.5,
        }

    optimizer = adam(
        learning_rate=1e-3,
        num_steps=num_steps,
        warmup_steps=2,
        final_fraction=0.1,
        b2=0.99,
        clip_norm=1.0,
    )
    frozen = {"offset": np.full(WIDTH, 0.1, np.float32)}
    return Task(
        loss_fn=_remembering_loss if remembers else _loss,
        init=init,
        frozen=frozen,
        optimizer=optimizer,
        ema_decay=0.9,
        seed=1,
        num_microbatches=2 if remembers else 1,
        history=LEVELS.init() if remembers else None,
    )


def run(
    workdir: Path,
    batches: Batches | None = None,
    *,
    mesh: Mesh | None = None,
    num_steps: int = 12,
    save_every: int = 3,
    keep: int = 3,
    restore: str = "latest",
    config: dict | None = None,
    remembers: bool = False,
) -> dict[str, np.ndarray]:
    """Trains or resumes; the leaves of the final state by name.

    remembers: with a loss that keeps a history, on parts of the batch.
    """
    mesh = mesh or make_mesh({"data": -1, "fsdp": 1}, devices=jax.devices()[:1])
    spec = LoopSpec(num_steps=num_steps, log_every=4, save_every=save_every)
    batches = batches or Batches()
    with Checkpoints(workdir / "checkpoints", config or CONFIG, keep=keep) as checkpoints:
        state = train(
            task(num_steps, remembers=remembers),
            batches,
            spec,
            mesh,
            workdir,
            checkpoints,
            restore=restore,
            free=("train.log_every",),
            records=_records,
        )
    whole = jax.jit(lambda x: x, out_shardings=parallel.replicated(mesh))(state)
    return {name: np.asarray(leaf) for name, leaf in named_leaves(whole).items()}


def _records(position: Any, n: int) -> list[int]:
    batches = Batches()
    batches.set_state(position)
    return [next(batches) for _ in range(n + 1)][-1]["index"].tolist()


def keep_final(workdir: Path, final: dict[str, Any]) -> None:
    """Writes the leaves to `final.npz`."""
    np.savez(workdir / "final.npz", allow_pickle=False, **final)


def run_and_keep(workdir: Path, **options: Any) -> None:
    """For a process of its own: the final state goes to `final.npz`."""
    keep_final(workdir, run(workdir, **options))


def run_and_die(workdir: Path, step: int, **options: Any) -> None:
    """For a process of its own: SIGKILL before `step`."""
    run(
        workdir,
        Batches(step, lambda batch: os.kill(os.getpid(), signal.SIGKILL) or batch),
        **options,
    )


class _Slow(Batches):
    """A second before each batch, and SIGTERM to this process before batch `at`."""

    def __next__(self) -> dict[str, np.ndarray]:
        time.sleep(1)
        return super().__next__()


def run_until_told(workdir: Path, address: str, index: int) -> None:
    """For one of two processes, of which the second gets SIGTERM: exits with 3 once stopped."""
    parallel.initialize_distributed(address, 2, index)
    told = _Slow(3 if index else 0, lambda batch: os.kill(os.getpid(), signal.SIGTERM) or batch)
    try:
        run(workdir, told, mesh=make_mesh({"data": 2, "fsdp": 1}))
    except StoppedError as stop:
        raise SystemExit(3) from stop


def run_on_mesh(
    workdir: Path,
    shape: dict[str, int],
    address: str = "",
    count: int = 1,
    index: int = 0,
    **options: Any,
) -> None:
    """For one of `count` processes: trains over all devices; the first one keeps the final state.

    Fails unless a parameter of 64 rows or columns a device is cut as the mesh says.
    """
    if address:
        parallel.initialize_distributed(address, count, index)
    mesh = make_mesh(shape)
    final = run(workdir, mesh=mesh, **options)
    cut = parallel.tree_shardings(final, mesh)["params.second"].shard_shape((HIDDEN, WIDTH))
    if cut != (HIDDEN // shape["fsdp"], WIDTH):
        raise SystemExit(f"a shard of {cut}")
    if jax.process_index() == 0:
        keep_final(workdir, final)
