# SPDX-License-Identifier: Apache-2.0
"""Caches: what is kept comes back, what is stale is refused, what is unfinished goes on."""

import json
import os
import pickle

import numpy as np
import pytest

from mmdisco_jax.inputs.cache import StaleCacheError, open_cache, read_cache, write_cache

MADE_BY = {"weights": {"audio": "a1", "video": "b2"}, "steps": (1, 2)}


def arrays(first: int, last: int) -> dict[str, np.ndarray]:
    """Example i as a function of i alone, of two types."""
    index = np.arange(first, last, dtype=np.float32)
    return {"audio": index[:, None] + np.zeros(3, np.float32), "n": index.astype(np.int16)}


class Maker:
    """Counts what it is asked for, and can fail at a shard."""

    def __init__(self, fails_at: int = -1):
        self.asked: list[int] = []
        self.fails_at = fails_at

    def __call__(self, first: int, last: int) -> dict[str, np.ndarray]:
        if first == self.fails_at:
            raise RuntimeError("killed")
        self.asked.append(first)
        return arrays(first, last)


def test_what_is_written_comes_back(tmp_path):
    write_cache(tmp_path / "c", MADE_BY, 10, arrays, shard_size=4)
    cache = open_cache(tmp_path / "c", MADE_BY)
    assert len(cache) == 10
    for i in range(10):
        assert cache[i]["n"] == i and cache[i]["n"].dtype == np.int16
        np.testing.assert_array_equal(cache[i]["audio"], np.full(3, i, np.float32))
    np.testing.assert_array_equal(read_cache(cache)["n"], np.arange(10))
    assert pickle.loads(pickle.dumps(cache))[9]["n"] == 9  # as grain's workers get it
    with pytest.raises(IndexError, match="example 10 of 10"):
        cache[10]


def test_an_interrupted_cache_goes_on_to_the_same_bytes(tmp_path):
    write_cache(tmp_path / "whole", MADE_BY, 10, arrays, shard_size=4)
    with pytest.raises(RuntimeError, match="killed"):
        write_cache(tmp_path / "c", MADE_BY, 10, Maker(fails_at=8), shard_size=4)
    with pytest.raises(FileNotFoundError, match=r"unfinished \(examples_00000008"):
        open_cache(tmp_path / "c")
    # What a kill leaves of the shard it was at, and a power failure of the one before.
    (tmp_path / "c" / "examples_00000008.array_record.1.part").write_bytes(b"half")
    os.truncate(tmp_path / "c" / "examples_00000004.array_record", 100)
    second = Maker()
    write_cache(tmp_path / "c", MADE_BY, 10, second, shard_size=4)
    assert second.asked == [4, 8]
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "c").iterdir())
    for name in names:
        assert (tmp_path / "c" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_cache_grows(tmp_path):
    write_cache(tmp_path, MADE_BY, 6, arrays, shard_size=4)
    second = Maker()
    write_cache(tmp_path, MADE_BY, 9, second, shard_size=4)
    assert second.asked == [4, 8]  # the shard that was not full is written anew
    np.testing.assert_array_equal(read_cache(open_cache(tmp_path))["n"], np.arange(9))


def test_processes_share_the_shards(tmp_path):
    makers = [Maker(), Maker()]
    for index, maker in enumerate(makers):
        write_cache(
            tmp_path, MADE_BY, 10, maker, shard_size=2, process_index=index, process_count=2
        )
    assert [maker.asked for maker in makers] == [[0, 4, 8], [2, 6]]
    assert len(open_cache(tmp_path)) == 10


@pytest.mark.parametrize("change", [{"weights": {"audio": "x"}}, {"steps": [1, 3]}])
def test_a_stale_cache_is_refused_by_name(tmp_path, change):
    write_cache(tmp_path, MADE_BY, 2, arrays, shard_size=4)
    for attempt in (
        lambda: open_cache(tmp_path, change),
        lambda: write_cache(tmp_path, MADE_BY | change, 2, arrays, shard_size=4),
    ):
        with pytest.raises(StaleCacheError, match=rf"stale: it was made with {next(iter(change))}"):
            attempt()
    with pytest.raises(StaleCacheError, match="shard_size = 4, not 8"):
        write_cache(tmp_path, MADE_BY, 2, arrays, shard_size=8)
    assert len(open_cache(tmp_path, {"steps": [1, 2]})) == 2


def test_damage_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no cache in"):
        open_cache(tmp_path)
    write_cache(tmp_path, MADE_BY, 8, arrays, shard_size=4)
    shard = tmp_path / "examples_00000004.array_record"
    data = bytearray(shard.read_bytes())
    data[70:90] = bytes(20)
    shard.write_bytes(bytes(data))
    cache = open_cache(tmp_path)
    with pytest.raises(ValueError, match=r"examples_00000004.*is damaged.*delete it"):
        [cache[i] for i in range(8)]
    assert json.loads((tmp_path / "made_by.json").read_text())["count"] == 8
