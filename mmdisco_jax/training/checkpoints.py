# SPDX-License-Identifier: Apache-2.0
"""Atomic checkpoints of a run: training state, position in the data, and resolved config.

Orbax writes into a temporary folder in the background and renames it at the end. The last file
written before the rename is a manifest of hashes. So a folder that is named by a step is complete,
and later damage to it is detected before it is used.
"""

import dataclasses
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import orbax.checkpoint as ocp

from mmdisco_jax.checks import listed, require_at_least
from mmdisco_jax.parallel import from_named_leaves, named_leaves
from mmdisco_jax.provenance import as_json, differences
from mmdisco_jax.training.manifest import damage, write_manifest

_TEMPORARY = "*.orbax-checkpoint-tmp*"
# Orbax changes these files after the manifest is written; they hold times, not state.
_NOT_LISTED = ("_CHECKPOINT_METADATA", "commit_success.txt")
_MADE_BY = "made_by"
_EARLIER = "earlier"  # in a record: what made the steps before, where that was something else
_ARGS: Any = ocp.args  # its generated constructors have no types


class CheckpointError(RuntimeError):
    """Raised when a checkpoint cannot be written or used; names it, the reason and the remedy."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Restore:
    """Which checkpoint to restore, and what may differ from it.

    Attributes:
      which: "latest", or the number of a kept step. Later checkpoints are then deleted, because the
        run continues from that step.
      free: dotted config keys whose values may differ from the checkpoint's; a key stands for
        everything below it too.
      by_contents: as `free`, where the record names the contents of the files that they name.
      raised: config keys whose values may be larger than the checkpoint's: the length of the
        training, and then, where that is larger, what is a share of it.
      new_data: whether the entry "data" of the record may differ.
    """

    which: str = "latest"
    free: Sequence[str] = ()
    by_contents: Sequence[str] = ()
    raised: Sequence[str] = ()
    new_data: bool = False


LATEST = Restore()


class Checkpoints:
    """Checkpoints of one run. As a context manager it waits for pending writes at the end.

    Attributes:
      made_by: the record that is saved with each; `restore` adds what was otherwise before.
      restored_step: the step of the checkpoint that `restore` has read, or None.
    """

    def __init__(
        self,
        directory: Path,
        config: dict[str, Any],
        *,
        keep: int,
        made_by: Mapping[str, Any] | None = None,
    ):
        """Opens the folder `directory`, or makes it.

        Args:
          config: the resolved config, ready for JSON; saved with every checkpoint.
          keep: number of checkpoints to keep, >= 1. Older ones are deleted once a newer one is
            complete.
          made_by: record of what the training is made with (`provenance`); saved with every
            checkpoint and compared by `restore`.
        """
        require_at_least(1, prefix="train.", keep=keep)
        self._directory = directory.absolute()
        self._config, self.made_by = as_json(config), as_json(made_by or {})
        self.restored_step: int | None = None
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
            _MADE_BY: ocp.JsonCheckpointHandler(),
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
            made_by=_ARGS.JsonSave(self.made_by),
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

    def restore(self, abstract: Any, chosen: Restore = LATEST) -> tuple[Any, Any] | None:
        """Restores a checkpoint.

        Args:
          abstract: tree of `jax.ShapeDtypeStruct` with shardings, which describes the state.
          chosen: which checkpoint, and what may differ from it.

        Returns:
          (state, state of the data iterator), or None if there is no checkpoint yet.

        Raises:
          CheckpointError: no such step, damaged files, another config, other data or weights, or
            another structure.
        """
        steps = self.steps()
        if chosen.which == "latest" and not steps:
            return None
        step = steps[-1] if chosen.which == "latest" else self._chosen(chosen.which, steps)
        self._require_whole(step, steps)
        items = {"config": _ARGS.JsonRestore(), "data": _ARGS.JsonRestore()}
        if (self._directory / str(step) / _MADE_BY).exists():
            items[_MADE_BY] = _ARGS.JsonRestore()
        saved: Any = self._manager.restore(step, args=_ARGS.Composite(**items))
        recorded = saved.get(_MADE_BY)
        self._require_same_config(saved.config, chosen, chosen.by_contents if recorded else ())
        made_by = self._compared(step, recorded, chosen.new_data)
        wanted = named_leaves(abstract)
        self._require_same_structure(step, wanted)
        args = _ARGS.StandardRestore(wanted)
        restored: Any = self._manager.restore(step, args=_ARGS.Composite(state=args))
        self.made_by, self.restored_step = made_by, step
        for later in steps[steps.index(step) + 1 :]:
            self._manager.delete(later)
        return from_named_leaves(abstract, restored.state), saved.data

    def _compared(self, step: int, saved: dict[str, Any] | None, new_data: bool) -> dict[str, Any]:
        """The record to go on with: this run's, with what was otherwise until `step`."""
        now = {key: value for key, value in self.made_by.items() if key != _EARLIER}
        if not saved:
            if now:
                print(
                    f"{self._directory / str(step)} does not record what data and weights it was "
                    "made with, as an older release wrote it: they are recorded from here on.",
                    file=sys.stderr,
                )
            return now | {_EARLIER: [{"until_step": step}]} if now else now
        earlier = saved.pop(_EARLIER, [])
        lines = differences(saved, now, ignored=("data",) if new_data else ())
        if lines:
            data = any(line.startswith("data was ") for line in lines)
            go_on = "; train.on_new_data=continue goes on with the new data" if data else ""
            raise CheckpointError(
                f"{self._directory} holds checkpoints that were made with others: "
                f"{listed(lines, separator='; ')}. Put these back, or choose another workdir"
                f"{go_on}."
            )
        if saved != now:
            old = {key: saved.get(key) for key in saved if saved[key] != now.get(key)}
            earlier = [*earlier, {"until_step": step, **old}]
        return now | ({_EARLIER: earlier} if earlier else {})

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

    def _require_same_config(
        self, saved: dict[str, Any], chosen: Restore, by_contents: Sequence[str]
    ) -> None:
        raised = [key for key in chosen.raised if _at(saved, key) < _at(self._config, key)]
        if list(chosen.raised[:1]) != raised[:1]:
            raised = []  # of the same length
        lines = differences(saved, self._config, ignored=(*chosen.free, *by_contents, *raised))
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


def _at(config: dict[str, Any], key: str) -> float:
    """The number at a dotted key; nan where there is none, which compares as false."""
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, int | float) else math.nan
