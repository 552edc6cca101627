# SPDX-License-Identifier: Apache-2.0
"""The written files decode to what was asked for: frame by frame, and sample by sample."""

import errno
import math
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from mmdisco_jax.export import media
from mmdisco_jax.io import WriteError

CLICKS = [0, 1234, 8000, 20000, 31990]


def picture(num_frames=16, size=32):
    """Smooth pictures that differ from frame to frame, as codecs and tests both like them."""
    y, x = np.mgrid[:size, :size] / size
    shades = [np.stack([x, y, np.full_like(x, f / num_frames)], -1) for f in range(num_frames)]
    return np.rint(255 * np.stack(shades)).astype(np.uint8)


def clicks(num_samples=32000):
    waveform = np.zeros(num_samples, np.float32)
    waveform[[c for c in CLICKS if c < num_samples]] = 0.9
    return waveform


def decode(path):
    with av.open(str(path)) as container:
        frames = [(f.time, f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        pieces = list(container.decode(audio=0))
        assert pieces[0].pts == 0
        sound = np.concatenate([p.to_ndarray()[0] for p in pieces])
        return [t for t, _ in frames], np.stack([p for _, p in frames]), sound, stream.duration


def test_mp4_keeps_pixels_times_and_duration(tmp_path):
    video = picture()
    media.write_mp4(tmp_path / "a.mp4", video, clicks(), fps=8, sample_rate_hz=16000, scale=8)
    times, frames, _, num_samples = decode(tmp_path / "a.mp4")
    assert times == [i / 8 for i in range(16)]
    assert frames.shape == (16, 256, 256, 3)
    error = np.abs(frames[:, 4::8, 4::8].astype(int) - video)
    assert error.mean() < 2 and error.max() < 16
    assert num_samples == 32000
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.duration == 2_000_000  # microseconds
        stream = container.streams.video[0]
        assert (stream.average_rate, stream.format.name) == (8, "yuv420p")


@pytest.mark.parametrize("rate_hz", [16000, 44100])
def test_mp4_sound_has_no_offset(tmp_path, rate_hz):
    media.write_mp4(tmp_path / "a.mp4", picture(), clicks(), fps=8, sample_rate_hz=rate_hz)
    sound = decode(tmp_path / "a.mp4")[2]
    assert 32000 <= len(sound) < 32000 + 1024  # what remains: the last block's padding
    for click in CLICKS:
        near = np.arange(max(click - 300, 0), min(click + 300, len(sound)))
        assert near[np.abs(sound[near]).argmax()] == click
    assert np.flatnonzero(np.abs(sound) > 0.4).tolist() == CLICKS


def test_mp4_sound_is_close_to_the_waveform(tmp_path):
    second = np.arange(32000) / 16000
    tone = (0.5 * np.sin(2 * np.pi * 440 * second)).astype(np.float32)
    media.write_mp4(tmp_path / "a.mp4", picture(), tone, fps=8, sample_rate_hz=16000)
    sound = decode(tmp_path / "a.mp4")[2][:32000]
    assert np.sqrt(np.mean((sound - tone)[100:-100] ** 2)) < 0.01


@pytest.mark.parametrize("num_samples", [1, 500, 16000, 50001])
def test_mp4_sound_may_be_shorter_or_longer_than_the_pictures(tmp_path, num_samples):
    media.write_mp4(tmp_path / "a.mp4", picture(), clicks(num_samples), fps=8, sample_rate_hz=16000)
    times, _, sound, duration = decode(tmp_path / "a.mp4")
    # PyAV 18 writes the length in steps of 16 samples, 19 exactly.
    step = 16 if int(av.__version__.split(".")[0]) < 19 else 1
    assert duration == step * math.ceil(num_samples / step)
    assert len(sound) >= num_samples and len(times) == 16


@pytest.mark.parametrize("fps", [Fraction(30000, 1001), 12.5, 1])
def test_mp4_without_sound_at_other_rates(tmp_path, fps):
    media.write_mp4(tmp_path / "a.mp4", picture(5), None, fps=fps, sample_rate_hz=16000)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert not container.streams.audio
        times = [frame.time for frame in container.decode(video=0)]
    np.testing.assert_allclose(times, np.arange(5) / float(fps), atol=1e-4)


def test_mp4_index_comes_first(tmp_path):
    media.write_mp4(tmp_path / "a.mp4", picture(), clicks(), fps=8, sample_rate_hz=16000)
    data = (tmp_path / "a.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video": picture().astype(np.float32)}, "float32"),
        ({"video": picture()[0]}, r"\(32, 32, 3\)"),
        ({"video": picture(size=31)}, "even"),
        ({"waveform": clicks()[None]}, "shape"),
        ({"waveform": np.zeros(0, np.float32)}, "empty"),
        ({"fps": 0}, "fps is 0"),
        ({"fps": float("nan")}, "fps is nan"),
        ({"sample_rate_hz": 12345}, "resample"),
        ({"scale": 0}, "scale is 0"),
        ({"crf": 99}, "crf is 99"),
    ],
)
def test_mp4_refuses(tmp_path, change, message):
    arguments = {"video": picture(), "waveform": clicks(), "fps": 8, "sample_rate_hz": 16000}
    with pytest.raises(ValueError, match=message):
        media.write_mp4(tmp_path / "a.mp4", **(arguments | change))
    assert not list(tmp_path.iterdir())


def test_wav_round_trip_clips(tmp_path):
    waveform = np.array([-3.0, -1.0, -0.5, 0.0, 0.25, 1.0, 3.0], np.float32)
    media.write_wav(tmp_path / "a.wav", waveform, 16000)
    samples, rate = soundfile.read(tmp_path / "a.wav", dtype="int16")
    assert rate == 16000 and soundfile.info(tmp_path / "a.wav").subtype == "PCM_16"
    np.testing.assert_array_equal(samples, [-32767, -32767, -16384, 0, 8192, 32767, 32767])


def test_int16_sound_is_written_as_it_is(tmp_path):
    sound = np.arange(-32768, 32768, dtype=np.int32).astype(np.int16)
    media.write_wav(tmp_path / "a.wav", sound, 16000)
    np.testing.assert_array_equal(soundfile.read(tmp_path / "a.wav", dtype="int16")[0], sound)
    with pytest.raises(ValueError, match=r"\(1, 65536\)"):
        media.write_wav(tmp_path / "a.wav", sound[None], 16000)


def test_mp4_of_int16_sound_is_that_of_the_same_floats(tmp_path):
    whole = (10_000 * np.sin(np.arange(32_000) / 9)).astype(np.int16)
    for name, sound in (("a", whole), ("b", whole.astype(np.float32) / 32768)):
        media.write_mp4(tmp_path / f"{name}.mp4", picture(), sound, fps=8, sample_rate_hz=16000)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_png_is_lossless(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (17, 33, 3), dtype=np.uint8)
    media.write_png(tmp_path / "a.png", image)
    with av.open(str(tmp_path / "a.png")) as container:
        np.testing.assert_array_equal(next(container.decode()).to_ndarray(format="rgb24"), image)


def write(kind, path):
    if kind == "mp4":
        media.write_mp4(path, picture(), clicks(), fps=8, sample_rate_hz=16000)
    elif kind == "wav":
        media.write_wav(path, clicks(), 16000)
    else:
        media.write_png(path, picture()[0])


@pytest.mark.parametrize("kind", ["mp4", "wav", "png"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, kind):
    target = tmp_path / f"a.{kind}"
    target.write_text("old")

    def full(self, other):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(WriteError, match=f"a.{kind}: No space left on device.*free disk") as caught:
        write(kind, target)
    assert caught.value.errno == errno.ENOSPC
    assert [p.name for p in tmp_path.iterdir()] == [target.name]
    assert target.read_text() == "old"


@pytest.mark.parametrize("kind", ["mp4", "wav"])
def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path, kind):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WriteError, match="another output folder"):
        write(kind, tmp_path / "file" / f"a.{kind}")


def test_a_disk_that_fills_up_while_encoding_leaves_nothing(tmp_path):
    """The encoder's own writes fail, as on a full disk, at several points of the file."""
    code = """if True:
        import resource, sys
        from pathlib import Path
        from tests.export.test_media import WriteError, write
        whole = Path(sys.argv[1] + "/whole.mp4")
        write("mp4", whole)
        size = whole.stat().st_size
        whole.unlink()
        for limit in (48, size // 2, size - 1):  # the header, the pictures, the last byte
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            try:
                write("mp4", sys.argv[1] + "/a.mp4")
            except WriteError as error:
                print("refused", error)
    """
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, str(tmp_path)],
        cwd=root, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.count("refused") == 3, done.stdout + done.stderr
    assert not list(tmp_path.iterdir())
