# SPDX-License-Identifier: Apache-2.0
"""A release is one folder, whose samples are the same wherever it lies."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard, metadata_load

from mmdisco_jax.experiment import Experiment, load_config
from mmdisco_jax.export.clips import read_all
from mmdisco_jax.io import digest
from mmdisco_jax.system import System, load
from mmdisco_jax.tasks import release, sample

DEMO = Path(__file__).resolve().parents[2] / "configs/results/bounce_demo.json"
AUDIO = load("bounce_demo").experiment.weights["audio"]  # no weights of video
SMALL = {"sample.num_samples": 2, "sample.batch_size": 2, "sample.num_steps": 2}


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("release") / "bounce"
    release.run(load("bounce_demo", {"release.metrics": str(DEMO)}), folder)
    return folder


def drawn(text: str | Path, workdir: Path) -> dict[str, np.ndarray]:
    """Two guided clips of two steps."""
    config: Any = load_config(text, SMALL | {"sample.num_media": 0})
    config = config.unlock().to_dict()
    config["sample"]["variants"].pop("independent")
    sample.run(System(Experiment.from_config(config)), workdir)
    return read_all(workdir / "guided")


def test_samples_of_a_moved_release_are_the_same_bits(released, tmp_path, monkeypatch):
    moved = tmp_path / "else where" / "ball"
    shutil.copytree(released, moved)
    before = drawn("bounce_demo", tmp_path / "before")
    monkeypatch.chdir(tmp_path / "else where")
    after = drawn("ball", tmp_path / "after")
    assert before["video"].shape == (2, 16, 32, 32, 3)
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


def test_the_config_is_whole_and_names_no_place_of_this_computer(released):
    text = (released / "config.json").read_text()
    assert str(released) not in text and "/" not in json.loads(text)["data"]["dir"]
    config = json.loads(text)
    assert config["weights"]["video"] == "weights/video.safetensors"
    assert {p.name for p in released.iterdir()} == {"README.md", "config.json", "weights"}
    for name in ("video", "audio", "discriminator"):
        shipped = load("bounce_demo").experiment.weights[name]
        assert digest(released / "weights" / f"{name}.safetensors") == digest(shipped)
    again = load(released, {"sample.num_steps": 7}).experiment
    assert again.sample.num_steps == 7
    assert again.clip == load("bounce_demo").experiment.clip
    assert again.weights["audio"] == str(released / "weights/audio.safetensors")


def test_the_card_has_the_form_of_the_hub_and_the_recorded_numbers(released):
    card = ModelCard.load(released / "README.md")
    front, text = metadata_load(released / "README.md"), card.text
    assert front["library_name"] == "mmdisco_jax" and front["license"] == "apache-2.0"
    assert {"diffusion", "jax"} <= set(front["tags"])
    recorded = json.loads(DEMO.read_text())["rows"]["guided"]
    (result,) = front["model-index"][0]["results"]
    values = {m["type"]: m["value"] for m in result["metrics"]}
    assert values == {row["name"]: row["value"] for row in recorded}
    assert front["metrics"] == sorted(values)
    assert "| f1_half_frame | 1.000 [1.000, 1.000] | 0.125" in text
    for name in ("video", "audio", "discriminator"):
        assert digest(released / "weights" / f"{name}.safetensors") in text
    assert "mmdisco sample --config=PATH_OF_THIS_FOLDER" in text


def test_without_measures_the_card_says_so(tmp_path, capsys):
    release.run(load("bounce_demo"), tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    assert "No measures were given" in card and "model-index" not in card
    told = capsys.readouterr()
    assert f"hf upload YOUR_NAME/MODEL {tmp_path / 'out'}" in told.out
    assert "config of their training" in told.err


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"release.license": ""}, ValueError, "release.license is empty"),
        ({"weights.video": "no.safetensors"}, FileNotFoundError, "config.weights.video='no.saf"),
        ({"weights.video": "."}, ValueError, "folder of this computer"),
        ({"release.metrics": "no.json"}, FileNotFoundError, "release.metrics='no.json'"),
        ({"release.metrics": str(DEMO), "sample.num_steps": 9}, ValueError, "another experiment"),
        (
            {"release.metrics": str(DEMO), "weights.video": AUDIO},
            ValueError,
            "measures of other weights of video",
        ),
    ],
)
def test_what_cannot_be_released_is_told_and_nothing_is_left(tmp_path, changes, error, said):
    with pytest.raises(error, match=said):
        release.run(load("bounce_demo", changes), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_measures_are_compared_by_the_contents_of_weights(tmp_path):
    recorded = json.loads(DEMO.read_text())
    entry = {"path": "anywhere", "sha256": digest(load("bounce_demo").experiment.weights["video"])}
    recorded["made_by"] = {"samples": {"weights": {"video": entry}}}
    (tmp_path / "metrics.json").write_text(json.dumps(recorded))
    changes = {"release.metrics": str(tmp_path / "metrics.json")}
    release.run(load("bounce_demo", changes), tmp_path / "same")
    entry["sha256"] = "0" * 64
    (tmp_path / "metrics.json").write_text(json.dumps(recorded))
    with pytest.raises(ValueError, match="measures of other weights of video"):
        release.run(load("bounce_demo", changes), tmp_path / "other")


def test_a_release_never_overwrites(released):
    with pytest.raises(FileExistsError, match="exists already"):
        release.run(load("bounce_demo"), released)


def test_paths_of_media_stay_at_home(tmp_path):
    changes = {
        **{f"weights.{n}": load("bounce_demo").experiment.weights["video"] for n in ("video",)},
        "weights.audio": "",
        "weights.discriminator": "",
        "release.license": "cc-by-4.0",
    }
    release.run(load("folder:path=/home/me/holiday,runs=/x", changes), tmp_path / "out")
    assert "/home/me" not in (tmp_path / "out/config.json").read_text()


def test_what_is_no_release_is_told(released, tmp_path):
    with pytest.raises(ValueError, match=r"is a folder without config\.json"):
        load(tmp_path)
    shutil.copytree(released, tmp_path / "torn")
    (tmp_path / "torn/config.json").write_text('{"seed": ')
    with pytest.raises(ValueError, match="no whole JSON file"):
        load(tmp_path / "torn")
    with pytest.raises(ValueError, match="there is no config"):
        load(f"{released}:video")
