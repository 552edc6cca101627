# SPDX-License-Identifier: Apache-2.0
"""A config's dataset is that one or an error; equal records have equal digests."""

import dataclasses
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

import mmdisco_jax as mm
from mmdisco_jax.datasets import DATASETS
from mmdisco_jax.inputs import digests
from mmdisco_jax.inputs.digests import record_digests
from mmdisco_jax.inputs.prepared import NotPreparedError, prepared_folder
from mmdisco_jax.media.prepare import prepare

OPTIONS = {"clip_seconds": 1.0, "fps": 8, "height": 16, "width": 16, "sample_rate_hz": 8000}


def media(folder: Path, *names: str) -> dict[str, Any]:
    """Options of a folder of files; listing them reads their sizes and times alone."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(name.encode())
    return {**OPTIONS, "folder": str(folder)}


def pretend_prepared(data_dir: Path, options: dict[str, Any]) -> Path:
    """The descriptions that `prepare` leaves, without the records."""
    builder: Any = DATASETS.get("folder")
    config = builder.config(**options)
    folder = data_dir / "folder" / config.name / str(builder.VERSION)
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    recorded = dataclasses.asdict(config.options) | {"folder": Path(options["folder"]).name}
    (folder / "metadata.json").write_text(json.dumps(recorded))
    return folder


@pytest.fixture
def folder_a(tmp_path) -> dict[str, Any]:
    options = media(tmp_path / "a", "one.mp4")
    pretend_prepared(tmp_path / "data", options)
    return options


def test_the_dataset_of_the_options_is_found(folder_a, tmp_path):
    found = prepared_folder("folder", tmp_path / "data", folder_a)
    assert json.loads((found / "metadata.json").read_text())["folder"] == "a"


def test_no_other_dataset_is_taken_for_it(folder_a, tmp_path):
    """Row 1 of the trials: with only A prepared, all of these used A's clips."""
    cases = {
        "a folder called 'a', the config's is": media(tmp_path / "b", "one.mp4"),
        "its media: .*missing": {**folder_a, "folder": str(tmp_path / "missing")},
        "spatial 'pad', the config has 'centre_crop'": {**folder_a, "spatial": "centre_crop"},
        "fps 8.*, the config has 10": {**folder_a, "fps": 10},
    }
    for said, options in cases.items():
        with pytest.raises(NotPreparedError, match="Run the mode prepare") as caught:
            prepared_folder("folder", tmp_path / "data", options)
        assert caught.match(said) and caught.match("data.prepared=FOLDER"), str(caught.value)


def test_files_that_were_added_or_changed_make_another_dataset(folder_a, tmp_path):
    media(tmp_path / "a", "two.mp4")
    with pytest.raises(NotPreparedError, match="other files, or files that have changed since"):
        prepared_folder("folder", tmp_path / "data", folder_a)
    (tmp_path / "a" / "two.mp4").unlink()
    prepared_folder("folder", tmp_path / "data", folder_a)
    os.utime(tmp_path / "a" / "one.mp4", (1, 1))
    with pytest.raises(NotPreparedError, match="changed since"):
        prepared_folder("folder", tmp_path / "data", folder_a)


def test_without_media_a_dataset_is_used_by_name_and_with_its_own_options(folder_a, tmp_path):
    chosen = prepared_folder("folder", tmp_path / "data", folder_a)
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(NotPreparedError, match=r"data\.prepared=FOLDER"):
        prepared_folder("folder", tmp_path / "data", folder_a)
    for name in (chosen, chosen.parent):
        assert prepared_folder("folder", tmp_path, folder_a, chosen=str(name)) == chosen
    with pytest.raises(ValueError, match="prepared with other options: spatial 'pad', the config"):
        prepared_folder("folder", tmp_path, {**folder_a, "spatial": "stretch"}, chosen=str(chosen))


def test_no_mode_reads_another_dataset_than_its_config_names(folder_a, tmp_path):
    """`train` and `evaluate` of a folder that was never prepared, or is not there at all."""
    (tmp_path / "b").mkdir()
    for path in ("b", "missing"):
        system = mm.load(f"folder:path={tmp_path / path}", {"data.dir": str(tmp_path / "data")})
        for read in (system.source, system.clips):
            for split in ("train", "test"):
                with pytest.raises(NotPreparedError, match=f"its media: .*{path}"):
                    read(split)


def test_options_that_a_dataset_lacks_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"config.data.options of dataset 'bounce'.*size"):
        prepared_folder("bounce", tmp_path, {"size": 3})


@pytest.fixture(scope="module")
def bounce(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("bounce")
    return Path(prepare("bounce", root, num_train=3, num_test=2)["directory"])


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MMDISCO_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "digests"


def test_digests_are_of_the_records_of_each_split(bounce, tmp_path, cache):
    found = record_digests(bounce)
    assert set(found) == {"train", "test"} and found["train"] != found["test"]
    assert record_digests(shutil.copytree(bounce, tmp_path / "elsewhere")) == found
    again = prepare("bounce", tmp_path / "again", num_train=3, num_test=2)
    assert record_digests(again["directory"]) == found
    more = record_digests(prepare("bounce", tmp_path, num_train=4, num_test=2)["directory"])
    assert more["train"] != found["train"] and more["test"] == found["test"]
    with pytest.raises(FileNotFoundError):
        record_digests(tmp_path / "missing")


def test_a_shard_is_hashed_once_until_it_changes(bounce, tmp_path, cache, monkeypatch):
    read = []
    hashed = digests.digest
    monkeypatch.setattr(digests, "digest", lambda path: read.append(path.name) or hashed(path))
    folder = shutil.copytree(bounce, tmp_path / "copy")
    shard = next(folder.glob("*train*"))
    first = record_digests(folder)
    read.clear()
    assert record_digests(folder) == first and shard.name in read  # it may change within a tick
    for path in folder.iterdir():
        os.utime(path, (time.time() - 100, time.time() - 100))
    record_digests(folder)
    read.clear()
    assert record_digests(folder) == first and read == ["features.json"]
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)  # of the same size
    assert record_digests(folder)["train"] != first["train"]
    (next(cache.iterdir())).write_text("{")
    assert record_digests(folder)["test"] == first["test"]
