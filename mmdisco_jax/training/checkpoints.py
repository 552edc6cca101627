# SPDX-License-Identifier: Apache-2.0
"""Atomic checkpoints of a run: training state, position in the data, and resolved config.

Orbax writes into a temporary folder in the background and renames it at the end. The last file
written before the rename is a manifest of hashes. So a folder that is named by a step is complete,
and later damage to it is detected before it is used.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import orbax.checkpoint as ocp

from mmdisco_jax.checks import listed, require_at_least
from mmdisco_jax.parallel import from_named_leaves, named_leaves
from mmdisco_jax.training.manifest import damage, write_manifest

_TEMPORARY = "*.orbax-checkpoint-tmp*"
# Orbax changes these files after the manifest is written; they hold times, not state.
_NOT_LISTED = ("_CHECKPOINT_METADATA", "commit_success.txt")
_ARGS: Any = ocp.args  # its generated constructors have no types


class CheckpointError(RuntimeError):
    """Raised when a checkpoint cannot be written or used; names it, the reason and the remedy."""


class Checkpoints:
    """Checkpoints of one run. As a context manager it waits for pending writes at the end."""

    def __init__(self, directory: Path, config: dict[str, Any], *, keep: int):
        """Opens the folder `directory`, or makes it.

        Args:
          config: the resolved config, ready for JSON; saved with every checkpoint.
          keep: number of checkpoints to keep, >= 1. Older ones are deleted once a newer one is
            complete.
        """
        require_at_least(1, prefix="train.", keep=keep)
        self._directory = directory.absolute()
        self._config = json.loads(json.dumps(config))
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            cleanup_tmp_directories=True,
            save_root_metadata=False,
            lightweight_initialize=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
        )
        handlers = {
            "state": ocp.StandardCheckpointHandler(),
            "data": ocp.JsonCheckpointHandler(),
            "config": ocp.JsonCheckpointHandler(),
        }
        try:
            self._manager = ocp.CheckpointManager(
                self._directory, options=options, item_handlers=handlers
            )
        except OSError as error:
            raise CheckpointError(f"cannot use {directory} for checkpoints: {error}.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.wait()
        except CheckpointError:
            if error is None:  # otherwise the earlier error is the informative one
                raise
        finally:
            self._manager.close()

    def steps(self) -> list[int]:
        """Lists the steps that have a complete checkpoint, in order."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, data: Any) -> None:
        """Starts writing a checkpoint, and returns as soon as the state may be donated.

        Args:
          state: tree of arrays, distributed over all processes.
          data: state of the data iterator, ready for JSON; that of the first process is written.

        Raises:
          CheckpointError: this or the previous checkpoint could not be written. A later call may
            be the first to report it.
        """
        items = _ARGS.Composite(
            state=_ARGS.StandardSave(named_leaves(state)),
            data=_ARGS.JsonSave(data),
            config=_ARGS.JsonSave(self._config),
        )
        try:
            self._manager.save(step, args=items, force=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._not_written(error) from error

    def wait(self) -> None:
        """Waits for pending writes; raises CheckpointError if one failed."""
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except (OSError, ValueError, RuntimeError) as error:
            raise self._not_written(error) from error

    def restore(
        self, abstract: Any, *, which: str = "latest", free: Sequence[str] = ()
    ) -> tuple[Any, Any] | None:
        """Restores a checkpoint.

        Args:
          abstract: tree of `jax.ShapeDtypeStruct` with shardings, which describes the state.
          which: "latest", or the number of a kept step. Later checkpoints are then deleted, because
            the run continues from that step.
          free: dotted config keys whose values may differ from the checkpoint's; a key stands for
            everything below it too.

        Returns:
          (state, state of the data iterator), or None if there is no checkpoint yet.

        Raises:
          CheckpointError: no such step, damaged files, another config, or another structure.
        """
        steps = self.steps()
        if which == "latest" and not steps:
            return None
        step = steps[-1] if which == "latest" else self._chosen(which, steps)
        self._require_whole(step, steps)
        items = _ARGS.Composite(
            config=_ARGS.JsonRestore(),
            data=_ARGS.JsonRestore(),
        )
        saved: Any = self._manager.restore(step, args=items)
        self._require_same_config(saved.config, free)
        wanted = named_leaves(abstract)
        self._require_same_structure(step, wanted)
        args = _ARGS.StandardRestore(wanted)
        restored: Any = self._manager.restore(step, args=_ARGS.Composite(state=args))
        for later in steps[steps.index(step) + 1 :]:
            self._manager.delete(later)
        return from_named_leaves(abstract, restored.state), saved.data

    def _seal(self) -> None:
        """Writes the manifest; Orbax calls this after all data, before the final rename."""
        if jax.process_index() == 0:
            for folder in self._directory.glob(_TEMPORARY):
                write_manifest(folder, ignored=_NOT_LISTED)

    def _not_written(self, error: Exception) -> CheckpointError:
        for leftover in self._directory.glob(_TEMPORARY):
            shutil.rmtree(leftover, ignore_errors=True)
        steps = sorted(int(p.name) for p in self._directory.iterdir() if p.name.isdigit())
        last = f"the last good one is of step {steps[-1]}" if steps else "there is none yet"
        return CheckpointError(
            f"could not write a checkpoint to {self._directory}: {error}. Nothing of it was kept; "
            f"{last}. Free disk space or choose another workdir, then run the same command again."
        )

    def _chosen(self, which: str, steps: list[int]) -> int:
        if which.isdigit() and int(which) in steps:
            return int(which)
        raise CheckpointError(
            f"train.restore is {which!r}, but must be 'latest' or one of the steps kept in "
            f"{self._directory}: {steps}."
        )

    def _require_whole(self, step: int, steps: list[int]) -> None:
        lines = damage(self._directory / str(step))
        if lines:
            earlier = [s for s in steps if s < step]
            remedy = (
                f"to resume from an earlier one, set train.restore={earlier[-1]}"
                if earlier
                else "there is no earlier one; choose another workdir to start anew"
            )
            raise CheckpointError(
                f"the checkpoint {self._directory / str(step)} is damaged: "
                f"{listed(lines, separator='; ')}. It was not used, and nothing was "
                f"changed; {remedy} (kept steps: {steps})."
            )

    def _require_same_config(self, saved: dict[str, Any], free: Sequence[str]) -> None:
        old, new = _dotted(saved), _dotted(self._config)
        lines = [
            f"{key} was {old.get(key, 'absent')!r}, now {new.get(key, 'absent')!r}"
            for key in sorted(old.keys() | new.keys())
            if old.get(key, "absent") != new.get(key, "absent")
            and not any(key == part or key.startswith(f"{part}.") for part in free)
        ]
        gone = sorted(set(saved) - set(self._config))
        if gone:
            raise CheckpointError(
                f"{self._directory} holds checkpoints of an older release, whose config had the "
                f"sections {', '.join(gone)}. Finish that training with the release that began it, "
                "or start anew in another workdir; train.init_from takes finished weights."
            )
        if lines:
            raise CheckpointError(
                f"{self._directory} holds checkpoints of another config: "
                f"{listed(lines, separator='; ')}. Choose another workdir, or set these keys back."
            )

    def _require_same_structure(self, step: int, wanted: dict[str, Any]) -> None:
        saved: Any = self._manager.item_metadata(step)
        old = {name: (tuple(leaf.shape), str(leaf.dtype)) for name, leaf in saved.state.items()}
        new = {name: (tuple(leaf.shape), str(leaf.dtype)) for name, leaf in wanted.items()}
        lines = [
            f"{name} is {old.get(name, 'absent')} there and {new.get(name, 'absent')} here"
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name)
        ]
        if lines:
            raise CheckpointError(
                f"the checkpoint {self._directory / str(step)} does not fit this model and "
                f"optimizer: {listed(lines, separator='; ')}. Choose another workdir, or the code "
                "that wrote it."
            )


def _dotted(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= _dotted(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
