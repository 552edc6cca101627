# SPDX-License-Identifier: Apache-2.0
"""Time grids: published values and what each spacing promises."""

import numpy as np
import pytest

from mmdisco_jax.process.schedules import linear
from mmdisco_jax.samplers.grids import SPACINGS, timesteps

LINEAR = linear()


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("num_steps", [1, 2, 7, 50, 1000])
def test_levels_fall_strictly_within_the_schedule(spacing, num_steps):
    grid = timesteps(LINEAR, num_steps, spacing)
    assert grid.dtype == np.int32 and 1 <= len(grid) <= num_steps
    assert grid.min() >= 0 and grid.max() <= 999
    assert np.all(np.diff(grid) < 0)
    if spacing != "logsnr":
        assert len(grid) == num_steps


def test_published_values():
    # The official loop's 50 levels, and those of Lin et al. 2024, table 2, for 10 steps.
    official = timesteps(LINEAR, 50, "leading", offset=1)
    assert list(official[:3]) == [981, 961, 941] and official[-1] == 1
    assert list(timesteps(LINEAR, 10, "trailing")) == list(range(999, 0, -100))
    assert list(timesteps(LINEAR, 10, "linspace")) == [999 - 111 * i for i in range(10)]


def test_logsnr_is_even_in_log_snr():
    grid = timesteps(LINEAR, 12, "logsnr")
    abar = LINEAR.abar[grid]
    steps = np.diff(np.log(abar / (1 - abar)))
    assert grid[0] == 999 and grid[-1] == 0
    # Rounding to integers moves a level by half of its neighbours' distance, large only near t = 0.
    np.testing.assert_allclose(steps[:8], steps.mean(), rtol=0.05)


@pytest.mark.parametrize("num_steps", [0, 1001])
def test_an_impossible_number_of_steps_is_refused(num_steps):
    with pytest.raises(ValueError, match=r"num_steps must be in 1\.\.1000"):
        timesteps(LINEAR, num_steps)


def test_an_unknown_spacing_is_named():
    with pytest.raises(ValueError, match="unknown spacing 'karras': choose one of leading"):
        timesteps(LINEAR, 10, "karras")
