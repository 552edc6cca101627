# SPDX-License-Identifier: Apache-2.0
"""Grain pipeline: an endless, shuffled, resumable stream of training batches.

The stream of examples depends only on the seed: position i holds the same example with the same
random draws for any batch size and any number of processes or workers. Global batch k consists of
positions [k * batch_size, (k + 1) * batch_size), and each process reads one block of its rows.
"""

import dataclasses
from typing import Any

import grain
import numpy as np
from absl import flags

from mmdisco_jax.checks import require_at_least
from mmdisco_jax.inputs.transforms import Example, HorizontalFlip, pair_only
from mmdisco_jax.inputs.windows import RandomWindow, WindowSize

# A batch has megabytes, so grain's default of 500 elements ahead would take gigabytes.
_READ_OPTIONS = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)


def make_train_iterator(
    source: grain.sources.RandomAccessDataSource,
    *,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    flip_probability: float = 0.5,
    window: WindowSize | None = None,
    draw: grain.transforms.RandomMap | None = None,
    num_workers: int = 0,
) -> grain.DatasetIterator:
    """Makes an endless iterator of training batches, reshuffled each epoch.

    Args:
      source: raw examples, `{"video": uint8 [f h w 3], "audio": int16 [samples], ...}`.
      batch_size: global batch size, over all processes; a multiple of `process_count`. Every batch
        is full: one that reaches the end of an epoch takes the rest from the next.
      seed: decides the order and all random draws; >= 0.
      process_index: this process, in 0..process_count-1.
      process_count: number of processes that share a batch.
      flip_probability: chance that a clip is mirrored, in [0, 1]; `FLIPS` names some values.
      window: size of the window that is drawn from each clip; None takes clips whole.
      draw: random transform that comes last, such as `degradations.RandomPairs`.
      num_workers: worker processes that read ahead; 0 reads in threads. The batches are the same.

    Returns:
      An iterator of `{"video": uint8 [b f h w 3], "audio": int16 [b samples]}`, or of the output of
      `draw`, with b = batch_size // process_count. A state from `get_state()`, passed to
      `set_state()` after a restart, gives the identical rest of the sequence.

    Raises:
      ValueError: an argument breaks the rules above, or the source is empty.
    """
    _check(source, batch_size=batch_size, seed=seed, num_workers=num_workers)
    _check_processes(batch_size, process_index, process_count)
    stream = grain.MapDataset.source(source).seed(seed).shuffle().map(pair_only)
    stream = stream.repeat()
    if window is not None:  # before the flip, which copies the clip
        stream = stream.random_map(RandomWindow(size=window))
    stream = stream.random_map(HorizontalFlip(probability=flip_probability))
    if draw is not None:
        stream = stream.random_map(draw)
    rows = _Rows(
        stream=stream,
        stride=batch_size,
        first=process_index * (batch_size // process_count),
        count=batch_size // process_count,
    )
    batches = grain.MapDataset.range(len(stream) // batch_size).map(rows)
    dataset = batches.to_iter_dataset(_READ_OPTIONS)
    if num_workers:
        # Grain's workers read absl flags; a program that has not parsed them gets the defaults.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=num_workers))
    return iter(dataset)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Rows:
    """Map from k to one process's part of batch k: `count` positions from k * stride + first."""

    stream: Any  # a grain.MapDataset; its items are typed as optional because filters drop some
    stride: int
    first: int
    count: int

    def __call__(self, k: int) -> Example:
        start = k * self.stride + self.first
        return _stack([self.stream[start + i] for i in range(self.count)])


def _stack(examples: list[Example]) -> Example:
    for key in examples[0]:
        shapes = {example[key].shape for example in examples}
        if len(shapes) > 1:
            raise ValueError(
                f"examples of one batch differ in the shape of {key}: {sorted(shapes)}; every "
                "record must hold a clip of one size. Prepare the dataset again."
            )
    return {key: np.stack([example[key] for example in examples]) for key in examples[0]}


def _check_processes(batch_size: int, process_index: int, process_count: int) -> None:
    if not 0 <= process_index < process_count:
        raise ValueError(
            f"process_index is {process_index}, but must be in 0..{process_count - 1} "
            f"for process_count {process_count}."
        )
    if batch_size % process_count:
        raise ValueError(
            f"batch_size is {batch_size}, but must be a multiple of process_count "
            f"({process_count}), as it is the global batch; round it up or down."
        )


def _check(
    source: grain.sources.RandomAccessDataSource, *, batch_size: int, seed: int, num_workers: int
) -> None:
    require_at_least(1, batch_size=batch_size)
    require_at_least(0, seed=seed, num_workers=num_workers)
    if not len(source):
        raise ValueError("the source has no examples; choose a split that has some.")
