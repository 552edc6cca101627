# SPDX-License-Identifier: Apache-2.0
"""Sound for a given video and pictures for a given sound, in one command."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from mmdisco_jax import cli
from mmdisco_jax.export.media import write_mp4
from mmdisco_jax.media.conditions import read_conditions
from mmdisco_jax.media.cutting import ClipSpec
from mmdisco_jax.media.policies import PolicyError
from mmdisco_jax.system import load
from mmdisco_jax.tasks.gallery import titles

SCALES = "--config.sample.variants.guided.scales"
SPEC = ClipSpec(clip_seconds=1.0, fps=8, height=16, width=16, sample_rate_hz=8000)


def resolved(capsys: pytest.CaptureFixture, config: str, *arguments: str) -> dict:
    cli.main(["mmdisco", "sample", f"--config={config}", "--workdir=x", "--dry_run", *arguments])
    return json.loads(capsys.readouterr().out)["sample"]


def test_the_flag_sets_the_condition_and_leaves_models_out_that_do_not_hear(capsys):
    sampling = resolved(capsys, "folder:/videos", "--given_video=my clip.mp4")
    assert sampling["condition"]["given"] == "video"
    assert sampling["condition"]["media"] == "my clip.mp4"
    assert set(sampling["variants"]) == {"guided"}
    joint = resolved(capsys, "bounce_mm_diffusion", "--given_audio=a.wav")
    assert joint["condition"]["given"] == "audio" and set(joint["variants"]) == {"joint", "guided"}
    # Variants that have a condition of their own take this one.
    sampling = resolved(capsys, "bounce_mm_ablations:audio_to_video", "--given_video=v.mp4")
    assert not any("condition" in variant for variant in sampling["variants"].values())
    assert "condition" in str(load("bounce_mm_ablations:audio_to_video").experiment.variants)


@pytest.mark.parametrize(
    ("mode", "arguments", "said"),
    [
        ("sample", ["--given_video=a.mp4", "--given_audio=a.wav"], "one of them at a time"),
        ("evaluate", ["--given_video=a.mp4"], "are for sample, not for evaluate"),
        ("sample", ["--given_vidoe=a.mp4"], "given_vidoe"),
        (
            "sample",
            ["--given_video=a.mp4", f"{SCALES}.audio=0.0", f"{SCALES}.video=0.0"],
            "no variant of this config can make the rest of a given video",
        ),
    ],
)
def test_flags_that_do_not_go_together_are_told(capsys, mode, arguments, said):
    with pytest.raises(SystemExit):
        cli.main(["mmdisco", mode, "--config=folder:/v", "--workdir=x", "--dry_run", *arguments])
    assert said in capsys.readouterr().err


def _without_sound(source: Path, target: Path) -> None:
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    video = rng.integers(0, 255, (10, 16, 16, 3), np.uint8)
    sound = rng.uniform(-0.5, 0.5, 10_000)
    write_mp4(folder / "both.mp4", video, sound, fps=8, sample_rate_hz=8000)
    _without_sound(folder / "both.mp4", folder / "silent.mp4")
    soundfile.write(folder / "ring.wav", sound, 8000)
    soundfile.write(folder / "short.wav", sound[:4000], 8000)
    soundfile.write(folder / "low.wav", sound, 4000)
    return folder


def test_a_silent_video_is_a_condition(media):
    (clip,) = read_conditions(media / "silent.mp4", "video", SPEC)
    assert clip.name == "silent.mp4" and clip.window.video.shape == (8, 16, 16, 3)
    (clip,) = read_conditions(media / "ring.wav", "audio", SPEC)
    assert clip.window.audio.shape == (8000,)


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("silent.mp4", "audio", "silent.mp4: has no sound track. Give others."),
        ("ring.wav", "video", "ring.wav: has no moving pictures. Give others."),
        ("short.wav", "audio", "--config.sample.condition.on_short=skip or hold"),
        ("low.wav", "audio", "--config.sample.condition.on_odd_rate=skip or keep"),
    ],
)
def test_what_cannot_be_given_is_told_with_the_setting_that_would(media, name, given, said):
    with pytest.raises(PolicyError) as error:
        read_conditions(media / name, given, SPEC)
    assert said in str(error.value) and "on_missing" not in str(error.value)


def test_samples_are_called_as_the_files_they_were_made_for(tmp_path):
    system = load("folder:/videos,runs=x")
    files = [["my clip.mp4", "0"], ["a/b.mov", "1"]]
    note = {"variants": {name: {"conditions": files} for name in ("guided", "independent")}}
    (tmp_path / "made_by.json").write_text(json.dumps(note))
    assert titles(system, tmp_path, 3) == ["my clip", "a/b", "my clip"]
    note["variants"]["guided"]["conditions"] = files[:1]  # nothing in common
    (tmp_path / "made_by.json").write_text(json.dumps(note))
    assert titles(system, tmp_path, 3) is None
    (tmp_path / "made_by.json").unlink()
    assert titles(system, tmp_path, 3) is None
