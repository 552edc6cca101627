# SPDX-License-Identifier: Apache-2.0
"""Real files as conditions: what is read, and what is refused with which words."""

import numpy as np
import pytest
import soundfile

from mmdisco_jax.export.media import write_mp4
from mmdisco_jax.media.conditions import read_conditions
from mmdisco_jax.media.cutting import ClipSpec
from mmdisco_jax.media.policies import PolicyError

SPEC = ClipSpec(clip_seconds=1.0, fps=8, height=16, width=16, sample_rate_hz=8000)


def _media(path, *, seconds=1.5, fps=8, rate=8000, sound=True):
    frames = np.zeros((round(seconds * fps), 16, 16, 3), np.uint8)
    frames[:, :, :, 0] = np.arange(len(frames))[:, None, None] * 16
    tone = np.sin(np.arange(round(seconds * rate)) * 0.3).astype(np.float32) / 2
    write_mp4(path, frames, tone if sound else None, fps=fps, sample_rate_hz=rate)
    return path


def _wav(path, seconds, rate=8000):
    soundfile.write(path, np.sin(np.arange(round(seconds * rate)) * 0.3) / 2, rate)
    return path


def test_the_first_clip_of_each_file_by_name(tmp_path):
    _media(tmp_path / "b.mp4")
    _media(tmp_path / "a.mp4", seconds=3.0, rate=16_000)  # a higher rate is converted
    clips = read_conditions(tmp_path, "video", SPEC)
    assert [clip.name for clip in clips] == ["a.mp4", "b.mp4"]
    assert clips[0].sha256 != clips[1].sha256
    for clip in clips:
        assert clip.window.video.shape == (8, 16, 16, 3) and clip.window.audio.shape == (8000,)
        red = clip.window.video[:, 8, 8, 0].astype(int)
        np.testing.assert_allclose(np.diff(red), 16, atol=6)
        assert np.abs(clip.window.audio).max() > 10_000
    (one,) = read_conditions(tmp_path / "b.mp4", "audio", SPEC)
    np.testing.assert_array_equal(one.window.audio, clips[1].window.audio)


def test_only_the_given_modality_is_needed(tmp_path):
    silent = _media(tmp_path / "silent.mp4", sound=False)
    (clip,) = read_conditions(silent, "video", SPEC)
    assert clip.window.video.max() > 80 and not clip.window.audio.any()
    (clip,) = read_conditions(_wav(tmp_path / "ring.wav", 1.5), "audio", SPEC)
    assert not clip.window.video.any() and np.abs(clip.window.audio).max() > 10_000
    # In a folder as well; the video without sound is no condition there.
    with pytest.raises(PolicyError, match=r"1 of 2.*silent\.mp4: has no sound"):
        read_conditions(tmp_path, "audio", SPEC)


def test_a_low_rate_of_the_other_modality_does_not_matter(tmp_path):
    slow_sound = _media(tmp_path / "x.mp4", rate=7350)
    assert len(read_conditions(slow_sound, "video", SPEC)) == 1
    with pytest.raises(PolicyError, match=r"7350 samples a second, of 8000.*on_odd_rate=skip or"):
        read_conditions(slow_sound, "audio", SPEC)
    assert len(read_conditions(slow_sound, "audio", SPEC, on_odd_rate="keep")) == 1
    slow = _media(tmp_path / "slow.mp4", fps=4, sound=False)
    with pytest.raises(PolicyError, match=r"4 frames a second, of 8"):
        read_conditions(slow, "video", SPEC)


def test_what_is_too_short(tmp_path):
    short = _media(tmp_path / "short.mp4", seconds=0.5)
    with pytest.raises(PolicyError, match=r"short\.mp4: .*shorter than one clip of 1.0 s.*hold"):
        read_conditions(short, "video", SPEC)
    (clip,) = read_conditions(short, "video", SPEC, on_short="hold")
    assert clip.window.video.shape[0] == 8
    with pytest.raises(ValueError, match=r"no condition is left: short\.mp4"):
        read_conditions(short, "video", SPEC, on_short="skip")
    with pytest.raises(PolicyError, match=r"ring\.wav: .*shorter than one clip"):
        read_conditions(_wav(tmp_path / "ring.wav", 0.4), "audio", SPEC)


def test_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        read_conditions(tmp_path / "nowhere", "video", SPEC)
    with pytest.raises(FileNotFoundError, match="no file with audio under"):
        read_conditions(tmp_path, "audio", SPEC)
    (tmp_path / "broken.mp4").write_bytes(b"no media")
    with pytest.raises(PolicyError, match=r"broken\.mp4: cannot be decoded"):
        read_conditions(tmp_path / "broken.mp4", "video", SPEC)
    with pytest.raises(ValueError, match="given is 'text'"):
        read_conditions(tmp_path / "broken.mp4", "text", SPEC)
