# SPDX-License-Identifier: Apache-2.0
"""Tensors that are read one by one."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from mmdisco_jax.porting.lazy import LazyTensor, LazyTensors, open_files

TENSORS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b.half": np.array([0.5, 1.5], np.float16),
    "b.brain": np.array([[0.25], [3.0]], ml_dtypes.bfloat16),
    "ids": np.arange(4)[None],
    "scalar": np.array(2.0, np.float32),
}


def unreadable() -> np.ndarray:
    raise AssertionError("the tensor was read")


def test_what_a_file_holds_is_known_before_it_is_read(tmp_path: Path):
    save_file(TENSORS, tmp_path / "w.safetensors")
    lazy = open_files([tmp_path / "w.safetensors"])
    assert lazy.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        entry = lazy.entries[name]
        assert (entry.shape, entry.dtype) == (value.shape, value.dtype)
        assert lazy[name].dtype == value.dtype
        np.testing.assert_array_equal(lazy[name], value)


@pytest.mark.parametrize("zipped", [True, False])
def test_pytorch_files(tmp_path: Path, zipped):
    torch = pytest.importorskip("torch")
    wide = {n: torch.tensor(x.astype(np.float32)) for n, x in TENSORS.items()}
    torch.save(wide, tmp_path / "w.bin", _use_new_zipfile_serialization=zipped)
    lazy = open_files([tmp_path / "w.bin"])
    assert lazy.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        np.testing.assert_array_equal(lazy[name], value.astype(np.float32))


def test_views_read_nothing():
    entry = LazyTensor((3,), np.dtype(np.float32), unreadable)
    lazy = LazyTensors({"x.a": entry, "x.b": entry})
    view = lazy.renamed(lambda name: None if name == "x.b" else name[2:])
    assert "a" in view and "x.a" not in view and list(view) == ["a"] and len(view) == 1
    with pytest.raises(ValueError, match=r"two tensors are called 'y'.*'x\.b'"):
        lazy.renamed(lambda name: "y")
    with pytest.raises(AssertionError, match="was read"):
        view["a"]


def test_damaged_files_are_named(tmp_path: Path):
    save_file(TENSORS, tmp_path / "a.safetensors")
    save_file({"ids": TENSORS["ids"]}, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=r"b\.safetensors: holds 'ids', and so does another"):
        open_files([tmp_path / "a.safetensors", tmp_path / "b.safetensors"])
    with pytest.raises(FileNotFoundError, match="no such weight file"):
        open_files([tmp_path / "absent.safetensors"])
    whole = (tmp_path / "a.safetensors").read_bytes()
    for broken in (whole[:-3], whole[:5], b"", b"\xff" * 64):
        (tmp_path / "c.safetensors").write_bytes(broken)
        with pytest.raises(ValueError, match=r"c\.safetensors: not a readable safetensors"):
            open_files([tmp_path / "c.safetensors"])
    strange = whole.replace(b'"BF16"', b'"F9E2"')
    (tmp_path / "d.safetensors").write_bytes(strange)
    with pytest.raises(ValueError, match=r"d\.safetensors"):
        open_files([tmp_path / "d.safetensors"])
