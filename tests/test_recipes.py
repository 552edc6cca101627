# SPDX-License-Identifier: Apache-2.0
"""Arguments of configs, and shapes that follow from the clip that they describe."""

import json
from typing import Any

import jax
import pytest

from mmdisco_jax import recipes
from mmdisco_jax.system import load

DEFAULTS: dict[str, Any] = {"path": ".", "train": "video", "seconds": 1.6, "size": 64}


def given(text: str) -> dict[str, Any]:
    """The arguments that differ from their defaults."""
    found = recipes.arguments(text, "path", **DEFAULTS)
    assert list(found) == list(DEFAULTS)
    assert all(type(found[name]) is type(value) for name, value in DEFAULTS.items())
    return {name: value for name, value in found.items() if value != DEFAULTS[name]}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", {}),
        ("/videos", {"path": "/videos"}),
        ("/videos,train=audio", {"path": "/videos", "train": "audio"}),
        ("train=audio", {"train": "audio"}),
        ("size=128,path=/videos", {"path": "/videos", "size": 128}),
        ("seconds=10", {"seconds": 10.0}),
        ("seconds=2.5e-1", {"seconds": 0.25}),
        ("path=", {"path": ""}),
        # Paths hold any character: only the name of an argument after a comma ends one.
        ("/my, own,videos", {"path": "/my, own,videos"}),
        ("path=/a, b,seconds=2", {"path": "/a, b", "seconds": 2.0}),
        ("path=/a=b,c=d,size=2", {"path": "/a=b,c=d", "size": 2}),
        ("/a=b", {"path": "/a=b"}),
        ("./a=b,size=2", {"path": "./a=b", "size": 2}),
        ("path=a=b", {"path": "a=b"}),
        ("path=train=x", {"path": "train=x"}),
        ("C:\\videos:1,size=2", {"path": "C:\\videos:1", "size": 2}),
        ("/vidéos 🎬/?*[x]", {"path": "/vidéos 🎬/?*[x]"}),
    ],
)
def test_arguments_by_name_and_by_place(text, wanted):
    assert given(text) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sise=128", "unknown argument 'sise' of the config: choose from path, train, seconds"),
        ("size=large", "argument size='large' of the config must be of type int"),
        ("size=12.5", "argument size='12.5' of the config must be of type int"),
        ("seconds=ten,size=2", "argument seconds='ten' of the config must be of type float"),
        ("seconds=2,sise=3", "argument seconds='2,sise=3' of the config must be of type float"),
    ],
)
def test_what_no_argument_can_be_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        given(text)


@pytest.mark.parametrize("name", ["folder", "folder_mm_diffusion", "bounce"])
def test_an_unknown_target_or_dataset_is_named(name):
    with pytest.raises(ValueError, match="unknown target 'smell': choose one of"):
        load(f"{name}:train=smell")
    if name != "bounce":
        with pytest.raises(ValueError, match="unknown dataset 'youtube': choose one of folder"):
            load(f"{name}:dataset=youtube")


@pytest.mark.parametrize(
    ("seconds", "size", "fps", "rate"),
    [(10, 128, 12, 44_100), (1.6, 64, 10, 16_000), (2, 32, 8, 22_050), (4, 96, 25, 48_000)],
)
def test_shapes_follow_from_the_clip(tmp_path, seconds, size, fps, rate):
    system = load(
        f"configs/folder.py:path={tmp_path},seconds={seconds},size={size},fps={fps},rate={rate},"
        "train=video"
    )
    experiment, clip = system.experiment, system.experiment.clip
    assert experiment.train.target == "video" and experiment.data.options["folder"] == str(tmp_path)
    options = experiment.data.options
    for key, value in (("fps", fps), ("height", size), ("width", size), ("sample_rate_hz", rate)):
        assert options[key] == getattr(clip, key) == value
    assert (clip.num_frames, clip.num_samples) == (round(seconds * fps), round(seconds * rate))
    # Latents of what the data are: their shapes, and that their clocks end with the clip.
    formats = system.formats
    assert formats["video"].shape == (clip.num_frames, size, size, 3)
    sound = jax.ShapeDtypeStruct((1, clip.num_samples), "int16")
    encoded = jax.eval_shape(system.codecs["audio"].encode, sound)
    assert formats["audio"].shape == encoded.shape[1:]
    for m, format in formats.items():
        centres = format.clock.centres(format.shape[0])
        assert centres[0] >= 0 and 0 <= seconds - centres[-1] <= format.clock.step + 1e-6, m
    # About four frames of sound a picture, so that one token of sound is of one picture.
    assert 2.5 < formats["audio"].shape[0] / clip.num_frames < 6
    assert formats["audio"].shape[0] % 4 == 0
    # The networks take these shapes.
    x = {m: jax.ShapeDtypeStruct((2, *f.shape), "float32") for m, f in formats.items()}
    t = jax.ShapeDtypeStruct((2,), "int32")
    params = {
        name: jax.eval_shape(init, jax.random.key(0))
        for name, (_, init) in system.definitions.items()
    }
    head = jax.eval_shape(system.discriminator[1], jax.random.key(0))
    log_ratio = jax.eval_shape(
        lambda params, head, x, t: system.log_ratio_of(head, params)(x, t), params, head, x, t
    )
    assert log_ratio.shape == (2,)


def test_every_setting_of_the_recipes_is_plain_json():
    for settings in (
        recipes.patch_transformers(size=32, num_mels=32, mel_mean=0.0),
        recipes.mm_diffusion(),
        recipes.mm_diffusion_sampling(),
        recipes.small_mm_discriminator(),
        recipes.super_resolution_pairs(),
    ):
        assert json.loads(json.dumps(settings))
    assert recipes.guided(3.0) == {"scales": {"audio": 3.0, "video": 3.0}}
    assert recipes.guided(3.0, 0.0) == {"scales": {"audio": 3.0, "video": 0.0}}
