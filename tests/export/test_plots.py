# SPDX-License-Identifier: Apache-2.0
"""Pictures of a clip: time runs evenly across the width, frequency up the height."""

import av
import numpy as np
import pytest

from mmdisco_jax.export import plots
from mmdisco_jax.export.spectrogram import FLOOR_DB, log_mel_db
from mmdisco_jax.worlds.bounce import physics


def read_png(path):
    with av.open(str(path)) as container:
        return next(container.decode()).to_ndarray(format="rgb24")


@pytest.mark.parametrize("hertz", [400, 1500, 5000])
def test_a_tone_lies_in_its_mel_row(hertz):
    second = np.arange(16000) / 16000
    level = log_mel_db(0.5 * np.sin(2 * np.pi * hertz * second), 16000, num_mels=80)
    expected = 80 * np.log1p(hertz / 700) / np.log1p(8000 / 700)
    assert np.all(np.abs(level[:, 10:-10].argmax(0) - expected) <= 1.5)


def test_a_click_lies_in_its_column():
    waveform = np.zeros(32000)
    waveform[[6400, 25600]] = 0.5
    energy = 10 ** (log_mel_db(waveform, 16000, num_columns=500) / 10)
    loud = energy.sum(0)
    for column in (100, 400):
        near = np.arange(column - 20, column + 20)
        assert abs((near * loud[near]).sum() / loud[near].sum() - column) < 1


def test_silence_is_dark():
    assert np.all(log_mel_db(np.zeros(16000), 16000) == FLOOR_DB)


def test_a_short_clip_still_has_every_column():
    assert log_mel_db(np.ones(10) * 0.5, 16000, num_columns=500).shape == (80, 500)


def test_bare_spectrogram_has_no_margin(tmp_path):
    waveform = np.full(16000, 0.0)
    waveform[[0, 15999]] = 0.9
    plots.write_spectrogram(tmp_path / "a.png", waveform, sample_rate_hz=16000)
    columns = read_png(tmp_path / "a.png").astype(int).sum((0, 2))
    assert columns.size == 1000
    assert columns[0] == columns.max() and columns[-1] > 0.9 * columns.max()
    assert columns[500] == columns.min()


def test_film_strip_holds_the_frames_in_order(tmp_path):
    clip = physics.simulate(0, 3)
    plots.write_film_strip(tmp_path / "a.png", clip.video)
    strip = read_png(tmp_path / "a.png")
    for i in (0, 7, 15):
        np.testing.assert_array_equal(strip[:, 32 * i : 32 * i + 32], clip.video[i])
    with pytest.raises(ValueError, match="uint8"):
        plots.film_strip(clip.video[0])
