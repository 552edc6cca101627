# SPDX-License-Identifier: Apache-2.0
"""The order, the coins and the resumption of the training stream."""

import itertools
import json
from typing import Any

import numpy as np
import pytest

from mmdisco_jax.inputs.pipeline import make_train_iterator


class NumberedSource:
    """Example i holds i everywhere in its sound and a left-to-right ramp in its video."""

    def __init__(self, size: int):
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict:
        ramp = np.broadcast_to(np.arange(4, dtype=np.uint8)[:, None], (2, 3, 4, 3))
        audio = np.full(5, index, np.int16)
        return {"video": ramp + np.uint8(10 * (index % 25)), "audio": audio, "colour": 3}


SOURCE = NumberedSource(10)


def take(iterator, count: int) -> list[dict]:
    return list(itertools.islice(iterator, count))


def indices(batches) -> np.ndarray:
    return np.concatenate([batch["audio"][:, 0] for batch in batches])


def flipped(batches) -> np.ndarray:
    return np.concatenate([batch["video"][:, 0, 0, 0, 0] % 10 == 3 for batch in batches])


def assert_same(left: list[dict], right: list[dict]) -> None:
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys() == {"video", "audio"}
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_each_epoch_holds_every_example_once_in_a_new_order():
    order = indices(take(make_train_iterator(SOURCE, batch_size=4, seed=3), 15)).reshape(6, 10)
    for epoch in order:
        assert sorted(epoch) == list(range(10))
    assert len({tuple(epoch) for epoch in order}) == 6
    other = indices(take(make_train_iterator(SOURCE, batch_size=4, seed=4), 15))
    assert (other != order.ravel()).any()


def test_batches_have_the_promised_form():
    batch = next(make_train_iterator(SOURCE, batch_size=4, seed=0))
    assert batch["video"].shape == (4, 2, 3, 4, 3)
    assert batch["video"].dtype == np.uint8
    assert batch["audio"].shape == (4, 5)
    assert batch["audio"].dtype == np.int16


def test_stream_does_not_depend_on_the_batch_size():
    small = take(make_train_iterator(SOURCE, batch_size=2, seed=1), 12)
    large = take(make_train_iterator(SOURCE, batch_size=8, seed=1), 3)
    np.testing.assert_array_equal(indices(small), indices(large))
    np.testing.assert_array_equal(flipped(small), flipped(large))


def test_processes_share_the_global_batch_by_blocks_of_rows():
    whole = take(make_train_iterator(SOURCE, batch_size=6, seed=7), 5)
    parts = [
        take(make_train_iterator(SOURCE, batch_size=6, seed=7, process_index=p, process_count=3), 5)
        for p in range(3)
    ]
    joined = [
        {key: np.concatenate([part[k][key] for part in parts]) for key in ("video", "audio")}
        for k in range(5)
    ]
    assert_same(joined, whole)


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_resumed_stream_is_the_uninterrupted_one(steps):
    whole = take(make_train_iterator(SOURCE, batch_size=4, seed=5), 12)
    first = make_train_iterator(SOURCE, batch_size=4, seed=5)
    take(first, steps)
    state = json.loads(json.dumps(first.get_state()))  # it must survive a checkpoint
    resumed = make_train_iterator(SOURCE, batch_size=4, seed=5)
    resumed.set_state(state)
    assert_same(take(resumed, 12 - steps), whole[steps:])


def test_flip_mirrors_the_width_half_of_the_time_and_leaves_the_sound():
    source = NumberedSource(100)
    size: Any = {"batch_size": 50, "seed": 2}
    plain = take(make_train_iterator(source, flip_probability=0.0, **size), 8)
    mixed = take(make_train_iterator(source, **size), 8)
    coins = flipped(mixed)
    assert 140 < coins.sum() < 260  # 400 fair coins: six standard deviations
    for a, b in zip(plain, mixed, strict=True):
        np.testing.assert_array_equal(a["audio"], b["audio"])
        mirrored = flipped([b])
        np.testing.assert_array_equal(b["video"][~mirrored], a["video"][~mirrored])
        np.testing.assert_array_equal(b["video"][mirrored], a["video"][mirrored][:, :, :, ::-1])
    # Coins are tossed anew each epoch: of 100 clips about 1/8 keep one side over 4 epochs.
    sides = [set(coins[indices(mixed) == i]) for i in range(100)]
    assert sum(len(side) == 2 for side in sides) > 60
    always = make_train_iterator(source, flip_probability=1.0, **size)
    assert flipped(take(always, 1)).all()


@pytest.mark.slow
def test_worker_processes_change_nothing_and_resume():
    whole = take(make_train_iterator(SOURCE, batch_size=4, seed=5), 9)
    workers = make_train_iterator(SOURCE, batch_size=4, seed=5, num_workers=2)
    assert_same(take(workers, 5), whole[:5])
    state = json.loads(json.dumps(workers.get_state()))
    resumed = make_train_iterator(SOURCE, batch_size=4, seed=5, num_workers=2)
    resumed.set_state(state)
    assert_same(take(resumed, 4), whole[5:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"num_workers": -1}, "num_workers is -1"),
        ({"flip_probability": 1.5}, "1.5"),
        ({"process_count": 2, "process_index": 2}, "process_index is 2"),
        ({"process_count": 3}, "multiple of process_count"),
        ({"source": NumberedSource(0)}, "no examples"),
    ],
)
def test_arguments_are_checked(change, message):
    arguments = {"source": SOURCE, "batch_size": 4, "seed": 0, **change}
    with pytest.raises(ValueError, match=message):
        make_train_iterator(arguments.pop("source"), **arguments)


def test_clips_of_different_sizes_are_named():
    class Uneven(NumberedSource):
        def __getitem__(self, index):
            example = super().__getitem__(index)
            return {**example, "audio": example["audio"][: 5 - index]}

    with pytest.raises(ValueError, match="differ in the shape of audio"):
        next(make_train_iterator(Uneven(2), batch_size=2, seed=0))
