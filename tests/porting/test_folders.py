# SPDX-License-Identifier: Apache-2.0
"""Folders that transformers and diffusers wrote are read, folders that we write they read."""

import json
import pickle
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
import transformers

from mmdisco_jax.porting.folders import missing_files, open_component, shard_names, weight_file
from mmdisco_jax.porting.lazy import LazyTensor, LazyTensors
from mmdisco_jax.porting.save import save_folder
from mmdisco_jax.text import clap, clip
from tests.support.reference import diffusers
from tests.support.text_encoders import clap_model, clip_model, random_, tensors_of


def vae_model() -> Any:
    sizes = {"block_out_channels": (4,), "norm_num_groups": 2, "layers_per_block": 1}
    return random_(diffusers.AutoencoderKL(**sizes))


MODELS = {"clip": clip_model, "clap": clap_model, "vae": vae_model}
SHARDS = {"max_shard_size": "9KB"}
BIN = {"safe_serialization": False}


@pytest.fixture(scope="module")
def models():
    return {name: make() for name, make in MODELS.items()}


def assert_same(got, want) -> None:
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert got[name].dtype == value.dtype and np.array_equal(got[name], value), name


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("clip", {}),
        ("clip", SHARDS | {"variant": "fp16"}),
        ("clap", {"variant": "fp16"}),
        ("clap", SHARDS),
        ("vae", {"variant": "fp16"}),
        ("vae", SHARDS | {"variant": "fp16"}),
        ("vae", BIN),
        ("vae", BIN | SHARDS),
    ],
)
def test_reads_what_they_write(models, tmp_path: Path, name, how):
    model = models[name]
    model.save_pretrained(tmp_path / "part", **how)
    found = open_component(tmp_path, "part", variant=how.get("variant"))
    assert_same(found.tensors, tensors_of(model))
    key = "latent_channels" if name == "vae" else "hidden_size"
    assert found.config[key] == getattr(model.config, key)
    flat = open_component(tmp_path / "part", variant=how.get("variant"))  # the model's own folder
    assert flat.tensors.keys() == found.tensors.keys()
    if "variant" in how:  # never by chance
        with pytest.raises(FileNotFoundError, match=r"part/\[.*\.fp16.*another variant\?"):
            open_component(tmp_path, "part")


@pytest.mark.parametrize("max_shard_bytes", [2**30, 9000], ids=["whole", "shards"])
def test_they_read_what_we_write(models, tmp_path: Path, max_shard_bytes):
    spec = clap.spec_from_config(models["clap"].config.to_dict())
    parameters = {n: p.detach().numpy() for n, p in models["clap"].named_parameters()}
    components = {
        # As the released checkpoints have it, with the prefix that transformers 5 dropped.
        "text": (
            models["clip"].config.to_dict(),
            {str(clip.port_name(n)): x for n, x in tensors_of(models["clip"]).items()},
        ),
        "sound": (models["clap"].config.to_dict(), parameters | clap.buffers(spec)),
        "vae": (dict(models["vae"].config), tensors_of(models["vae"])),
    }
    root = tmp_path / "new" / "folder"
    save_folder(root, components, max_shard_bytes=max_shard_bytes)
    index = "text/model.safetensors.index.json"
    assert (root / index).exists() == (max_shard_bytes == 9000)
    assert all(path.stat().st_size < 40_000 for path in root.glob("*/*-of-*"))
    written: list[tuple[str, Any, Any]] = [
        ("text", transformers.CLIPTextModel, models["clip"]),
        ("sound", transformers.ClapTextModelWithProjection, models["clap"]),
        ("vae", diffusers.AutoencoderKL, models["vae"]),
    ]
    for name, cls, model in written:
        again, info = cls.from_pretrained(root, subfolder=name, output_loading_info=True)
        assert not any(info.values()), info
        assert_same(tensors_of(again), tensors_of(model))
        assert_same(open_component(root, name).tensors, components[name][1])


def test_dtypes_are_kept_and_other_files_written(tmp_path: Path):
    tensors = {"half": np.ones((2, 3), ml_dtypes.bfloat16), "whole": np.arange(3), "turned": None}
    tensors["turned"] = np.arange(6, dtype=np.float32).reshape(2, 3).T
    files = {"model_index.json": "{}", "tokenizer/merges.txt": b"\xf0\x9f"}
    save_folder(tmp_path, {"": ({"a": 1}, tensors)}, files=files)  # an empty folder may be there
    assert_same(open_component(tmp_path).tensors, tensors)
    assert (tmp_path / "tokenizer" / "merges.txt").read_bytes() == b"\xf0\x9f"
    assert not list(tmp_path.parent.glob(".*.partial"))


def test_whole_or_not_at_all(tmp_path: Path):
    def fail() -> np.ndarray:
        raise OSError("no space left")

    root, entry = tmp_path / "out", LazyTensor((2,), np.dtype(np.float32), fail)
    good = {"x": ({}, {"w": np.zeros(2)})}
    with pytest.raises(OSError, match="no space left"):
        save_folder(root, good | {"y": ({}, LazyTensors({"w": entry}))})
    assert not list(tmp_path.iterdir())
    (tmp_path / ".out.partial" / "x").mkdir(parents=True)  # a run that was killed
    save_folder(root, good)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(FileExistsError, match="exists already; move it away"):
        save_folder(root, good)
    with pytest.raises(ValueError, match="max_shard_bytes=0"):
        save_folder(tmp_path / "other", good, max_shard_bytes=0)


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "..", ".", "a\\b"])
def test_no_component_leaves_the_folder(tmp_path: Path, name):
    for act in (
        lambda: open_component(tmp_path, name),
        lambda: missing_files(tmp_path, [], others=[name]),
        lambda: save_folder(tmp_path / "o", {name: ({}, {})}),
    ):
        with pytest.raises(ValueError, match="must be a plain folder name"):
            act()
    with pytest.raises(ValueError, match=r"plain folder name|inside the folder"):
        save_folder(tmp_path / "o", {}, files={f"x/{name}/../y": ""})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "weight_map",
    [
        *({"a": bad} for bad in ("../x.safetensors", "/x.bin", "a/b.bin", "..", "x.py", "", None)),
        {},
        ["x.bin"],
        None,
    ],
)
def test_no_index_leads_elsewhere(tmp_path: Path, weight_map):
    (tmp_path / "i.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ValueError, match=r"i\.json: names .* under weight_map; .* plain name"):
        shard_names(tmp_path, "i.json")


def test_safe_weights_first_and_variants_by_name():
    names = ["pytorch_model.bin", "model.safetensors.index.json", "model.fp16.safetensors"]
    assert weight_file(names, None) == "model.safetensors.index.json"
    assert weight_file(names, "fp16") == "model.fp16.safetensors"
    assert weight_file(names, "bf16") is None
    assert weight_file(names[:1], None) == "pytorch_model.bin"
    old = ["diffusion_pytorch_model.fp16.safetensors.index.json"]
    assert weight_file(old, "fp16") == old[0]


def test_what_is_missing_is_listed(tmp_path: Path):
    save_folder(tmp_path / "m", {"unet": ({}, {f"w{i}": np.zeros(9) for i in range(3)})},
                max_shard_bytes=80)  # fmt: skip
    assert missing_files(tmp_path / "m", ["unet"]) == []
    (tmp_path / "m" / "unet" / "model-00002-of-00003.safetensors").unlink()
    (tmp_path / "m" / "unet" / "config.json").unlink()
    lacking = missing_files(tmp_path / "m", ["unet", "vae"], others=["tokenizer"])
    assert lacking[:3] == [
        "unet/config.json", "unet/model-00002-of-00003.safetensors", "vae/config.json"
    ]  # fmt: skip
    assert lacking[3].startswith("vae/[diffusion_pytorch_model.safetensors or model.safetensors")
    assert lacking[4:] == ["tokenizer/*"]
    with pytest.raises(FileNotFoundError, match=r"lacks unet/config\.json, unet/model-00002"):
        open_component(tmp_path / "m", "unet")


class Evil:
    """Writes a file when its pickle is run."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_code_in_weights_never_runs(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    torch.save({"w": Evil(tmp_path / "ran")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="code in a weight file is never run"):
        open_component(tmp_path)
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(Evil(tmp_path / "ran")))  # it would have
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not readable as JSON"), ("[1]", "holds list, not an object"), ("", "not readable")],
)
def test_damaged_configs_are_named(tmp_path: Path, text, message):
    save_folder(tmp_path / "m", {"": ({}, {"w": np.zeros(1)})})
    (tmp_path / "m" / "config.json").write_text(text)
    with pytest.raises(ValueError, match=rf"config\.json: {message}"):
        open_component(tmp_path / "m")
