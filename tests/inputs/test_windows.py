# SPDX-License-Identifier: Apache-2.0
"""Windows of longer clips: what is drawn, how often, and what is measured."""

import itertools

import numpy as np
import pytest

from mmdisco_jax.inputs.pipeline import make_train_iterator
from mmdisco_jax.inputs.windows import FixedWindows, RandomWindow, WindowSize

FRAMES, HOP = 12, 100  # frames of a clip, samples of a frame
SIZE = WindowSize(num_frames=4, num_samples=4 * HOP)


class Clips:
    """Clip i tells its number, its frame and its sample in what it holds."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict:
        frame = np.arange(FRAMES, dtype=np.uint8)[:, None, None, None]
        video = np.broadcast_to(frame, (FRAMES, 2, 2, 3)) + np.uint8(FRAMES * index)
        audio = np.arange(FRAMES * HOP, dtype=np.int16) + np.int16(FRAMES * HOP * index)
        return {"video": video, "audio": audio}


def drawn(count: int, **options) -> list[tuple[int, int]]:
    """(clip, first frame) of the windows of `count` batches of 5."""
    iterator = make_train_iterator(Clips(5), batch_size=5, seed=1, window=SIZE, **options)
    windows = []
    for batch in itertools.islice(iterator, count):
        assert batch["video"].shape == (5, 4, 2, 2, 3)
        assert batch["audio"].shape == (5, 4 * HOP)
        for video, audio in zip(batch["video"], batch["audio"], strict=True):
            clip, first = divmod(int(video[0, 0, 0, 0]), FRAMES)
            # The sound begins with the picture, to the sample, and goes on with it.
            assert audio.tolist() == list(range(audio[0], audio[0] + 4 * HOP))
            assert audio[0] == FRAMES * HOP * clip + HOP * first
            assert video[:, 0, 0, 0].tolist() == list(
                range(video[0, 0, 0, 0], video[0, 0, 0, 0] + 4)
            )
            windows.append((clip, first))
    return windows


def test_windows_are_uniform_over_the_clip_and_in_step():
    windows = drawn(120, flip_probability=0.0)
    starts = np.bincount([first for _, first in windows], minlength=9)
    assert len(starts) == 9  # 12 frames hold a window of 4 at 0..8
    expected = len(windows) / 9
    chi_squared = ((starts - expected) ** 2 / expected).sum()
    assert chi_squared < 26.1  # 99.9 % of 8 degrees of freedom
    assert {clip for clip, _ in windows} == set(range(5))


def test_windows_do_not_depend_on_workers_or_interruption():
    plain = drawn(6)
    iterator = make_train_iterator(Clips(5), batch_size=5, seed=1, window=SIZE)
    next(iterator)
    state = iterator.get_state()
    rest = [next(iterator)["audio"][:, 0].tolist() for _ in range(3)]
    again = make_train_iterator(Clips(5), batch_size=5, seed=1, window=SIZE)
    again.set_state(state)
    assert [next(again)["audio"][:, 0].tolist() for _ in range(3)] == rest
    assert drawn(6) == plain


@pytest.mark.parametrize("workers", [1, 4])
def test_the_order_is_the_same_for_any_number_of_workers(workers):
    assert drawn(4, num_workers=workers) == drawn(4)


def test_processes_together_make_exactly_one_pass():
    for processes in (2, 4):
        seen: list[int] = []
        for index in range(processes):
            iterator = make_train_iterator(
                Clips(8), batch_size=4, seed=2, process_index=index, process_count=processes
            )
            for batch in itertools.islice(iterator, 2):
                seen += (batch["video"][:, 0, 0, 0, 0] // FRAMES).tolist()
        assert sorted(seen) == list(range(8))


def test_fixed_windows_follow_one_another():
    windows = FixedWindows(Clips(3), WindowSize(num_frames=5, num_samples=5 * HOP))
    assert len(windows) == 6  # two of 5 in 12, and a rest of 2
    firsts = [int(windows[i]["video"][0, 0, 0, 0]) for i in range(6)]
    assert firsts == [0, 5, 12, 17, 24, 29]
    assert [int(windows[i]["audio"][0]) for i in range(6)] == [HOP * first for first in firsts]
    with pytest.raises(IndexError, match="window 6 of 6"):
        windows[6]


def test_sound_is_cut_to_the_nearest_sample():
    """16,000 samples at 30 fps: a frame is 533.3 samples."""
    clip = {"video": np.zeros((30, 1, 1, 3), np.uint8), "audio": np.arange(16_000)}
    size = WindowSize(num_frames=15, num_samples=8000)
    for start in range(16):
        assert abs(size.cut(clip, start)["audio"][0] - start * 16_000 / 30) <= 0.5
        assert len(size.cut(clip, start)["audio"]) == 8000


def test_a_clip_that_is_too_short_says_so():
    size = WindowSize(num_frames=13, num_samples=HOP)
    with pytest.raises(ValueError, match=r"12 frames and 1200 samples is shorter.*13"):
        RandomWindow(size=size).random_map(Clips(1)[0], np.random.default_rng(0))
    with pytest.raises(ValueError, match="num_samples is 0"):
        WindowSize(num_frames=1, num_samples=0)
