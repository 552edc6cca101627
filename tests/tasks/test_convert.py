# SPDX-License-Identifier: Apache-2.0
"""`convert`: official files there and back to the last bit, and what is refused."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from mmdisco_jax.base_models.image_unet import ImageUNetSpec
from mmdisco_jax.base_models.super_resolution import SuperResolution
from mmdisco_jax.discriminator.official import OfficialDiscriminator, OfficialDiscriminatorSpec
from mmdisco_jax.discriminator.official_pair import OfficialPair
from mmdisco_jax.io import digest
from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.porting.files import read_tensors
from mmdisco_jax.porting.names import torch_tensor
from mmdisco_jax.porting.weights import load_weights, read_metadata
from mmdisco_jax.system import System, load
from mmdisco_jax.tasks import convert
from mmdisco_jax.tasks.convert import ARCHITECTURES, Architecture, run
from tests.test_cli import call

torch = pytest.importorskip("torch")

KEYS = Path(__file__).parents[1] / "golden" / "keys"
RELEASED = {
    "mm_diffusion_base64": "mmdiffusion_base64",
    "mm_diffusion_sr64to256": "mmdiffusion_sr64to256",
    "mmdisco_mmdiffusion": "mmdisco_mmdiffusion",
    "mmdisco_audioldm_animatediff": "mmdisco_audioldm_animediff_vggsound",
    "mmdisco_auffusion_videocrafter2": "mmdisco_auffusion_videocrafter2_vggsound",
}
UNET = ImageUNetSpec(
    in_channels=6,
    out_channels=6,
    model_channels=4,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_factors=(2,),
    resize_in_blocks=True,
    num_groups=2,
)
DISCRIMINATOR = OfficialDiscriminatorSpec(
    video_channels=3,
    audio_channels=1,
    audio_conv="1d",
    model_channels=4,
    num_groups=2,
    num_res_blocks=1,
    channel_mult=(1, 2),
    emb_dim=8,
)
# The networks of the table, narrow.
NARROW = {
    "unet": Architecture(make=lambda: SuperResolution(UNET, rngs=param_keys(0))),
    "discriminator": Architecture(
        make=lambda: OfficialDiscriminator(DISCRIMINATOR, rngs=param_keys(0)), inside="network"
    ),
}


@pytest.fixture(autouse=True)
def narrow_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(convert, "ARCHITECTURES", ARCHITECTURES | NARROW)


def official_shapes(architecture: Architecture) -> dict[str, list[int]]:
    shapes = {}
    for path, leaf in nnx.to_flat_state(architecture.abstract):
        name, axes = torch_tensor(path, leaf.ndim, architecture.overrides)
        shapes[name] = [leaf.shape[axis] for axis in axes]
    return shapes


def official(name: str) -> dict[str, np.ndarray]:
    """Random tensors as an official file of the narrow network has them."""
    rng = np.random.default_rng(0)
    shapes = official_shapes(NARROW[name])
    return {key: rng.standard_normal(shape, dtype=np.float32) for key, shape in shapes.items()}


def write_pt(path: Path, tensors: dict[str, np.ndarray], prefix: str = "") -> Path:
    torch.save({prefix + name: torch.tensor(x) for name, x in tensors.items()}, path)
    return path


def conversion(architecture: str, source: Path | str, target: str) -> System:
    files = {"convert.source": str(source), "convert.target": target}
    return load(f"convert:{architecture}", files)


def converted(architecture: str, source: Path, target: str, workdir: Path) -> Path:
    run(conversion(architecture, source, target), workdir)
    return workdir / target


# The other networks' names are tested where they are; here, that each line of the table makes its.
@pytest.mark.parametrize(
    "name",
    [
        name if name == "mmdisco_mmdiffusion" else pytest.param(name, marks=pytest.mark.slow)
        for name in RELEASED
    ],
)
def test_the_table_has_the_released_names_and_shapes(name: str):
    keys = json.loads((KEYS / f"{RELEASED[name]}.json").read_text())
    assert official_shapes(ARCHITECTURES[name]) == keys


def test_every_architecture_is_held_against_a_released_file():
    assert set(ARCHITECTURES) == set(RELEASED)


@pytest.mark.parametrize(("name", "prefix"), [("unet", ""), ("discriminator", "module.")])
def test_there_and_back_is_bit_exact(tmp_path: Path, name: str, prefix: str):
    tensors = official(name)
    source = write_pt(tmp_path / "ema_0.9999_100000.pt", tensors, prefix)
    ours = converted(name, source, "sub/ours.safetensors", tmp_path / "run")
    assert read_metadata(ours) == {
        "architecture": name,
        "source": "ema_0.9999_100000.pt",
        "source_sha256": digest(source),
    }
    back = torch.load(converted(name, ours, "back.pt", tmp_path / "run"), weights_only=True)
    assert back.keys() == tensors.keys()
    for key, tensor in back.items():
        assert tensor.dtype == torch.float32
        assert tensor.numpy().tobytes() == tensors[key].tobytes(), key
    again = converted(name, tmp_path / "run/back.pt", "again.safetensors", tmp_path / "run")
    ours_bytes, again_bytes = (
        {key: x.tobytes() for key, x in read_tensors(path).items()} for path in (ours, again)
    )
    assert ours_bytes == again_bytes


def test_our_models_load_what_was_converted(tmp_path: Path):
    """As the product does; a kernel's axes are moved, and its numbers are not."""
    tensors = official("discriminator")
    source = write_pt(tmp_path / "d.pt", tensors)
    ours = converted("discriminator", source, "d.safetensors", tmp_path)
    model = nnx.eval_shape(lambda: OfficialPair(DISCRIMINATOR, rngs=param_keys(0)))
    params = load_weights(ours, nnx.split(model)[1])
    linear = params["network"]["last_linear"]
    np.testing.assert_array_equal(linear["kernel"][...], tensors["last_linear.weight"].T)
    assert sum(x.size for x in jax.tree.leaves(params)) == sum(x.size for x in tensors.values())


def _without(tensors: dict, name: str) -> dict:
    return {key: x for key, x in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: _without(w, "out.2.bias"), "missing: out.2.bias"),
        (lambda w: w | {"label_emb.weight": np.zeros((3, 16))}, "label_emb.weight"),
        (lambda w: w | {"stray": np.zeros(3, np.float32)}, "unexpected: stray"),
        (lambda w: w | {"out.2.bias": np.zeros(5, np.float32)}, r"out.2.bias is \(5,\), the model"),
        (
            lambda w: {("module." if k == "out.2.bias" else "") + k: x for k, x in w.items()},
            "unexpected: module.out.2.bias",
        ),
        (lambda w: w | {"out.2.bias": w["out.2.bias"].astype(np.float64)}, r"out.2.bias \(float64"),
        (lambda w: {}, "missing: "),
    ],
)
def test_a_misfit_is_named_and_nothing_is_written(tmp_path: Path, change, message: str):
    source = write_pt(tmp_path / "w.pt", change(official("unet")))
    with pytest.raises(ValueError, match=message) as caught:
        converted("unet", source, "ours.safetensors", tmp_path)
    assert "w.pt" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["w.pt"]


def test_ours_of_another_network_is_refused(tmp_path: Path):
    source = write_pt(tmp_path / "w.pt", official("unet"))
    ours = converted("unet", source, "ours.safetensors", tmp_path)
    with pytest.raises(ValueError, match="unexpected: input_blocks"):
        converted("discriminator", ours, "back.pt", tmp_path)
    assert not (tmp_path / "back.pt").exists()


@pytest.mark.parametrize(
    ("architecture", "source", "target", "message"),
    [
        ("unnet", "w.pt", "w.safetensors", "unknown architecture 'unnet': set config.convert"),
        ("unet", "", "w.safetensors", "config.convert.source is empty"),
        ("unet", "w.pt", "", "config.convert.target is empty"),
        ("unet", "w.pt", "v.pt", "cannot convert w.pt to v.pt"),
        ("unet", "w.safetensors", "v.safetensors", "cannot convert"),
        ("unet", "w.pt", "v.npz", "cannot convert"),
        ("unet", "w.pt", "here.safetensors", "here.safetensors exists: remove it"),
    ],
)
def test_wrong_settings_are_told(tmp_path: Path, architecture, source, target, message):
    (tmp_path / "here.safetensors").touch()
    with pytest.raises(ValueError, match=message):
        run(conversion(architecture, source, target), tmp_path)


class _Touch:
    """Unpickling this creates a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_refused_and_does_not_run(tmp_path: Path, zipped: bool):
    marker, source = tmp_path / "ran", tmp_path / "evil.pt"
    content = {"weight": torch.zeros(2), "extra": _Touch(marker)}
    torch.save(content, source, _use_new_zipfile_serialization=zipped)
    status, stderr = call(
        tmp_path / "said",
        "convert",
        "--config=configs/convert.py:mmdisco_mmdiffusion",
        f"--workdir={tmp_path / 'run'}",
        f"--config.convert.source={source}",
        "--config.convert.target=o.safetensors",
    )
    assert status == 1
    assert f"error: {source}: cannot be read as plain tensors: it wants to call" in stderr
    assert "Traceback" not in stderr
    assert not marker.exists()
    assert not (tmp_path / "run" / "o.safetensors").exists()
    torch.load(source, weights_only=False)  # the file is what it is said to be
    assert marker.exists()
