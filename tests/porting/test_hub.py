# SPDX-License-Identifier: Apache-2.0
"""A folder or a Hugging Face id becomes a complete folder, or one error that says what to do."""

import fnmatch
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import numpy as np
import pytest

from mmdisco_jax.porting.folders import open_component
from mmdisco_jax.porting.hub import locate
from mmdisco_jax.porting.save import save_folder

ID = "someone/some-model"
WANT = {"models": ["unet", "vae"], "others": ["tokenizer"], "setting": "config.video.source"}


def save(root: Path) -> Path:
    """A complete pipeline, of which the U-Net's weights are in three files."""
    shards = {f"w{i}": np.zeros(9) for i in range(3)}
    parts = {"unet": ({"_class_name": "U"}, shards), "vae": ({}, {"w": np.zeros(3)})}
    files = {"tokenizer/vocab.json": "{}", "model_index.json": "{}"}
    save_folder(root, parts, files=files, max_shard_bytes=80)
    return root


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def snapshot(cache: Path, commit: str = "0" * 40) -> Path:
    """Folder of a revision of `ID` in the cache."""
    repository = cache / ("models--" + ID.replace("/", "--"))
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text(commit)
    return repository / "snapshots" / commit


class Hub:
    """A repository of the fake network: what is asked of it, and what it gives."""

    def __init__(self, repository: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
        self.repository, self.cache, self.asked = repository, cache, []
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: self)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot_download)

    def names(self) -> list[str]:
        files = [path for path in self.repository.rglob("*") if path.is_file()]
        return [path.relative_to(self.repository).as_posix() for path in files]

    def model_info(self, source: str, revision: str | None) -> Any:
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=n) for n in self.names()])

    def snapshot_download(self, source, *, revision, allow_patterns):
        self.asked += allow_patterns
        for name in self.names():
            if any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                path = snapshot(self.cache) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(self.repository / name, path)
        return str(snapshot(self.cache))


def test_a_folder_is_taken_as_it_is(tmp_path: Path):
    root = save(tmp_path / "model")
    assert locate(root, **WANT) == locate(str(root), **WANT) == root
    shutil.rmtree(root / "tokenizer")
    (root / "unet" / "diffusion_pytorch_model-00001-of-00003.safetensors").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        locate(root, **WANT)
    message = str(caught.value)
    assert message.startswith(f"config.video.source='{root}': the folder lacks unet/diffusion_py")
    assert "-00001-of-00003.safetensors, tokenizer/*. Put them there" in message


@pytest.mark.parametrize(
    "source", ["./absent", "/absent/x", "a/b/c", "https://host/a/b", "", "a b"]
)
def test_neither_folder_nor_id(source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"config\.video\.source=.*no such folder, nor"):
        locate(source, **WANT)


@pytest.mark.parametrize("source", [ID, "a--b/c", "single"])
def test_offline_without_the_files_is_one_error(source):
    with pytest.raises(FileNotFoundError) as caught:
        locate(source, **WANT)
    message = str(caught.value)
    for part in (
        f"config.video.source={source!r}",
        "unet/config.json",
        "vae/[diffusion_pytorch_model.safetensors or model.safetensors or",
        "tokenizer/*",
        f"hf download {source} --local-dir FOLDER",
        "set config.video.source=FOLDER",
        "HF_HOME",
    ):
        assert part in message


def test_offline_names_only_what_the_cache_lacks(cache: Path):
    save(snapshot(cache))
    (snapshot(cache) / "vae" / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"cache lacks vae/\[[^,]*\] of it, and they"):
        locate(ID, **WANT)


def test_the_cache_suffices(cache: Path):
    save(snapshot(cache))
    assert locate(ID, **WANT) == snapshot(cache)
    assert open_component(locate(ID, **WANT), "unet").tensors.keys() == {"w0", "w1", "w2"}
    flat = {"models": [""], "setting": "s"}
    with pytest.raises(FileNotFoundError, match="s='someone/some-model'"):
        locate(ID, **flat)


def test_only_what_is_needed_is_downloaded(tmp_path: Path, cache: Path, monkeypatch):
    repository = save(tmp_path / "repository")
    for extra in ("unet/diffusion_pytorch_model.bin", "vae/model.fp16.safetensors", "big.ckpt"):
        (repository / extra).write_bytes(b"")
    (repository / "safety_checker").mkdir()
    (repository / "safety_checker" / "model.safetensors").write_bytes(b"")
    hub = Hub(repository, cache, monkeypatch)
    assert locate(ID, **WANT) == snapshot(cache)
    shards = [f"unet/diffusion_pytorch_model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    rest = ["config.json", "diffusion_pytorch_model.safetensors.index.json"]
    assert set(hub.asked) == {
        "model_index.json",
        *(f"unet/{name}" for name in rest),
        *shards,
        "vae/config.json",
        "vae/model.safetensors",
        "tokenizer/vocab.json",
    }
    hub.asked.clear()
    assert locate(ID, **WANT) == snapshot(cache) and not hub.asked  # the second time from the cache


def test_a_repository_without_them(tmp_path: Path, cache: Path, monkeypatch):
    repository = save(tmp_path / "repository")
    (repository / "vae" / "model.safetensors").unlink()
    Hub(repository, cache, monkeypatch)
    with pytest.raises(FileNotFoundError, match=r"the repository lacks vae/\[.*Set config\.video"):
        locate(ID, **WANT)


def test_components_stay_inside(tmp_path: Path):
    with pytest.raises(ValueError, match="plain folder name"):
        locate(tmp_path, models=["../x"], setting="s")
