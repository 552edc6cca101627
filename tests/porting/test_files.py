# SPDX-License-Identifier: Apache-2.0
"""Weight files: what is written is read back, PyTorch's too, and code in a pickle never runs."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from mmdisco_jax.porting.files import read_tensors, write_tensors

TENSORS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3).T,  # not contiguous
    "steps": np.array(7, dtype=np.int64),  # rank 0
    "half": np.array([0.5, 1.5], dtype=np.float16),
}


def _assert_same(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert (got[name].dtype, got[name].shape) == (value.dtype, value.shape)
        np.testing.assert_array_equal(got[name], value)


def test_safetensors_round_trip(tmp_path: Path):
    write_tensors(tmp_path / "w.safetensors", TENSORS)
    _assert_same(read_tensors(tmp_path / "w.safetensors"), TENSORS)
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


@pytest.mark.parametrize("suffix", [".pt", ".ckpt"])
def test_torch_files(tmp_path: Path, suffix: str):
    torch = pytest.importorskip("torch")
    path = tmp_path / f"w{suffix}"
    state = {name: torch.tensor(value) for name, value in TENSORS.items()}
    torch.save(state, path)
    _assert_same(read_tensors(path), TENSORS)
    torch.save({"state_dict": state, "step": 3}, path)
    _assert_same(read_tensors(path, entry="state_dict"), TENSORS)
    with pytest.raises(ValueError, match=r"holds \['state_dict', 'step'\]"):
        read_tensors(path)
    with pytest.raises(ValueError, match="no entry 'ema'"):
        read_tensors(path, entry="ema")
    torch.save({"x": torch.tensor([1.5], dtype=torch.bfloat16)}, path)
    _assert_same(read_tensors(path), {"x": np.array([1.5], np.float32)})


def test_torch_round_trip(tmp_path: Path):
    torch = pytest.importorskip("torch")
    write_tensors(tmp_path / "w.pt", TENSORS)
    _assert_same(read_tensors(tmp_path / "w.pt"), TENSORS)
    plain = torch.load(tmp_path / "w.pt", weights_only=True)
    assert plain["a.weight"].tolist() == TENSORS["a.weight"].tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["w.pt"]


def test_without_torch_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    with pytest.raises(RuntimeError, match=r"w\.pt: writing \.pt files needs PyTorch \(pip"):
        write_tensors(tmp_path / "w.pt", TENSORS)
    assert not list(tmp_path.iterdir())
    (tmp_path / "w.ckpt").touch()
    with pytest.raises(RuntimeError, match=r"w\.ckpt: reading \.ckpt files needs PyTorch"):
        read_tensors(tmp_path / "w.ckpt")


class _Touch:
    """Unpickling this creates a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_pickled_code_does_not_run(tmp_path: Path):
    pytest.importorskip("torch")
    (tmp_path / "w.pt").write_bytes(pickle.dumps({"x": _Touch(tmp_path / "ran")}, protocol=2))
    with pytest.raises(ValueError, match=r"wants to call 'getattr', and code") as e:
        read_tensors(tmp_path / "w.pt")
    assert "weights_only" not in str(e.value)  # PyTorch's text says how to run it after all
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_corrupt_file(tmp_path: Path, name: str):
    if name.endswith(".pt"):
        pytest.importorskip("torch")
    (tmp_path / name).write_bytes(b"not weights at all")
    with pytest.raises(ValueError, match=name):
        read_tensors(tmp_path / name)


def test_cut_torch_file(tmp_path: Path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "w.pt"
    for zipped in (True, False):
        torch.save({"x": torch.zeros(1000)}, path, _use_new_zipfile_serialization=zipped)
        whole = path.read_bytes()
        for size in (0, 10, 200, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:size])
            with pytest.raises(ValueError, match=r"w\.pt: cannot be read as plain tensors: it is"):
                read_tensors(path)


def test_bad_paths(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no such weight file"):
        read_tensors(tmp_path / "absent.pt")
    (tmp_path / "w.npy").touch()
    with pytest.raises(ValueError, match=r"suffix '.npy' is unknown"):
        read_tensors(tmp_path / "w.npy")
    with pytest.raises(ValueError, match=r"suffix '.npz' is unknown"):
        write_tensors(tmp_path / "w.npz", TENSORS)
