# SPDX-License-Identifier: Apache-2.0
"""The grain pipeline: an endless, shuffled, resumable stream of training batches.

The stream of examples is a function of the seed alone: position i holds the same example and the
same coin toss whatever the batch size, the number of processes or of workers. Global batch k is
positions [k * batch_size, (k + 1) * batch_size), and each process owns one block of its rows.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np
from absl import flags

from mmdisco_jax.inputs.transforms import Example, HorizontalFlip, pair_only
from mmdisco_jax.inputs.windows import RandomWindow, WindowSize

# A batch is megabytes: grain's default of 500 elements ahead would be gigabytes.
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
    """Endless iterator of training batches, reshuffled each epoch.

    Args:
      source: raw examples, `{"video": uint8 [f h w 3], "audio": int16 [samples], ...}`.
      batch_size: global batch, over all processes; a multiple of `process_count`. Every batch is
        full: one that reaches the end of an epoch goes on into the next.
      seed: of the order and of the flips, >= 0.
      process_index: this process, in 0..process_count-1.
      process_count: number of processes that share the batch.
      flip_probability: chance that a clip is mirrored, in [0, 1]; `FLIPS` names some.
      window: a window of this size is drawn from each clip; None takes clips whole.
      draw: what each clip is turned into at last, such as `degradations.DrawnPairs`.
      num_workers: worker processes that read ahead; 0 reads in threads. The batches are the same.

    Returns:
      A `grain.DatasetIterator` of `{"video": uint8 [b f h w 3], "audio": int16 [b samples]}`, or of
      what `draw` makes of it, with b = batch_size // process_count. `get_state()` before a step and
      `set_state()` after a restart give the identical rest of the sequence.

    Raises:
      ValueError: an argument breaks the rules above, or the source is empty.
    """
    _check(source, batch_size=batch_size, seed=seed, num_workers=num_workers)
    _check_processes(batch_size, process_index, process_count)
    stream = grain.MapDataset.source(source).seed(seed).shuffle().map(pair_only)
    stream = stream.repeat()
    if window is not None:  # first: mirroring copies what it is given
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
        # Grain's workers read absl flags; in a program that has not parsed any, take the defaults.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=num_workers))
    return iter(dataset)


def make_eval_batches(
    source: grain.sources.RandomAccessDataSource, *, batch_size: int
) -> Iterator[Example]:
    """Every example once, in order, unflipped; the last batch may be smaller.

    Args:
      source: raw examples, as for `make_train_iterator`.
      batch_size: clips in a batch, >= 1.

    Returns:
      An iterator of `{"video": uint8 [b f h w 3], "audio": int16 [b samples]}`.

    Raises:
      ValueError: a batch size below 1 or an empty source.
    """
    _check(source, batch_size=batch_size, seed=0, num_workers=0)
    starts = range(0, len(source), batch_size)
    return (
        _stack([pair_only(source[i]) for i in range(start, min(start + batch_size, len(source)))])
        for start in starts
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Rows:
    """Batch k of one process: `count` consecutive positions from k * stride + first."""

    stream: Any  # grain.MapDataset, whose items are typed as optional for filters' sake
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
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("seed", seed, 0),
        ("num_workers", num_workers, 0),
    ):
        if value < least:
            raise ValueError(f"{name} is {value}, but must be >= {least}.")
    if not len(source):
        raise ValueError("the source has no examples; choose a split that has some.")
