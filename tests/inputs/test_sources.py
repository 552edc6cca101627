# SPDX-License-Identifier: Apache-2.0
"""Prepared data: what is written is what the simulator says, and damage is never silent."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data.bounce.bounce_dataset_builder import clip_index
from mmdisco_jax.inputs.sources import DamagedDatasetError, open_source
from mmdisco_jax.media.prepare import prepare
from mmdisco_jax.worlds.bounce import physics

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> tuple[Path, dict]:
    root = tmp_path_factory.mktemp("datasets")
    return root, prepare("bounce", root, num_train=6, num_test=3, seed=4)


@pytest.fixture
def copy(prepared, tmp_path) -> Path:
    return Path(shutil.copytree(prepared[1]["directory"], tmp_path / "copy"))


def test_summary_counts(prepared):
    _, summary = prepared
    assert summary["splits"] == {"train": 6, "test": 3}
    assert summary["seconds"] == {"train": 12.0, "test": 6.0}
    assert summary["already_prepared"] is False
    assert summary["quarantined"] == 0


@pytest.mark.parametrize(("split", "size"), [("train", 6), ("test", 3)])
@pytest.mark.parametrize("in_memory", [False, True])
def test_record_i_is_simulate_seed_i(prepared, split, size, in_memory):
    source = open_source("bounce", split, data_dir=prepared[0], in_memory=in_memory)
    assert len(source) == size
    for i in range(size):
        record, clip = source[i], physics.simulate(4, clip_index(split, i))
        np.testing.assert_array_equal(record["video"], clip.video)
        np.testing.assert_array_equal(record["audio"], clip.audio)
        assert (record["video"].dtype, record["audio"].dtype) == (np.uint8, np.int16)
        n = record["num_impacts"]
        np.testing.assert_allclose(record["impact_seconds"][:n], clip.impact_seconds, rtol=1e-6)
        np.testing.assert_allclose(record["impact_speeds"][:n], clip.impact_speeds, rtol=1e-6)
        assert np.isnan(record["impact_seconds"][n:]).all()
        np.testing.assert_allclose(record["height"], clip.height, atol=1e-5)
        assert record["colour"] == clip.colour
    assert source.metadata["fps"] == physics.FPS
    assert source.metadata["sample_rate_hz"] == physics.SAMPLE_RATE_HZ


def test_splits_never_share_a_clip():
    largest_train = clip_index("train", 10_000_000 - 1)
    assert largest_train < clip_index("test", 0)


def test_preparing_again_reuses(prepared):
    root, first = prepared
    again = prepare("bounce", root, num_train=6, num_test=3, seed=4)
    assert again == {**first, "already_prepared": True}


def test_a_directory_is_enough(copy):
    assert len(open_source(copy, "train")) == 6
    assert len(open_source(copy.parent, "test")) == 3


def test_writes_and_reads_without_importing_tensorflow(tmp_path):
    script = (
        "import sys\n"
        "from mmdisco_jax.media.prepare import prepare\n"
        "from mmdisco_jax.inputs.sources import open_source\n"
        f"made = prepare('bounce', {str(tmp_path)!r}, num_train=1, num_test=1)\n"
        "print(open_source(made['directory'], 'train')[0]['video'].shape)\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "(16, 32, 32, 3)" in done.stdout


def test_killed_preparation_is_never_taken_for_data(tmp_path):
    script = (
        "from mmdisco_jax.media.prepare import prepare\n"
        f"prepare('bounce', {str(tmp_path)!r}, num_train=5000, num_test=1)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not (begun := list(tmp_path.rglob("incomplete.*"))) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    assert begun, "the child wrote nothing"
    with pytest.raises(FileNotFoundError, match="no prepared dataset"):
        open_source("bounce", "train", data_dir=tmp_path)
    # What the killed run left is in the way of nobody: put it where a small dataset will go.
    small = begun[0].parent.parent / "train2_test1_seed0"
    small.mkdir()
    for left in list(tmp_path.rglob("incomplete.*")):
        shutil.move(left, small / left.name)
    made = prepare("bounce", tmp_path, num_train=2, num_test=1)
    assert made["already_prepared"] is False
    assert not list(tmp_path.rglob("incomplete.*"))
    assert len(open_source(made["directory"], "train")) == 2


@pytest.mark.parametrize("damage", ["truncate", "empty", "delete", "description"])
def test_damage_is_found_when_opening(copy, damage):
    shard = next(copy.glob("*train*"))
    if damage == "truncate":
        os.truncate(shard, shard.stat().st_size // 2)
    elif damage == "empty":
        os.truncate(shard, 0)
    elif damage == "delete":
        shard.unlink()
    else:
        (copy / "dataset_info.json").write_text("{")
    with pytest.raises(DamagedDatasetError, match=r"copy.* cannot be read.*prepare"):
        open_source(copy, "train")


def test_flipped_bits_are_found_when_reading(copy):
    clean = [open_source(copy, "train")[i]["video"] for i in range(6)]
    shard = next(copy.glob("*train*"))
    data = bytearray(shard.read_bytes())
    written = len(bytes(data[: -(64 << 10)]).rstrip(b"\0"))
    data[written // 2] ^= 0x10
    shard.write_bytes(bytes(data))
    with pytest.raises(DamagedDatasetError, match=r"record train\[\d\]"):
        source = open_source(copy, "train")
        for i, video in enumerate(clean):
            np.testing.assert_array_equal(source[i]["video"], video)


def test_what_cannot_be_opened_is_named(prepared, tmp_path):
    root, summary = prepared
    with pytest.raises(ValueError, match=r"unknown dataset 'bounced'.*bounce"):
        open_source("bounced", "train", data_dir=root)
    with pytest.raises(ValueError, match=r"unknown dataset 'bounced'"):
        prepare("bounced", tmp_path)
    with pytest.raises(ValueError, match="needs data_dir"):
        open_source("bounce", "train")
    with pytest.raises(ValueError, match=r"'valid'.*\['test', 'train'\]"):
        open_source(summary["directory"], "valid")
    with pytest.raises(FileNotFoundError, match="no prepared dataset"):
        open_source(tmp_path, "train")
    with pytest.raises(FileNotFoundError, match="no folder"):
        open_source(tmp_path / "missing", "train")
    shutil.copytree(summary["directory"], tmp_path / "a")
    shutil.copytree(summary["directory"], tmp_path / "b")
    with pytest.raises(ValueError, match="holds 2 prepared datasets"):
        open_source(tmp_path, "train")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_train": 0}, "num_train is 0"),
        ({"num_test": 10_000_001}, "num_test is 10000001"),
        ({"seed": -1}, "seed is -1"),
        ({"size": 3}, r"no option \['size'\].*num_train"),
    ],
)
def test_options_are_checked(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        prepare("bounce", tmp_path, **options)
