# SPDX-License-Identifier: Apache-2.0
"""Time grids: published values and what each spacing promises."""

import numpy as np
import pytest

from mmdisco_jax.process.schedules import linear
from mmdisco_jax.samplers.grids import SOLVER_SPACINGS, SPACINGS, TimeGrid, solver_grid, timesteps

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


def test_the_official_solver_grid():
    """What its wrapper tells the model in 20 calls, as measured in the official code."""
    grid = solver_grid(LINEAR, 20)
    known = [999, 949, 898, 843, 784, 721, 652, 576, 492, 399, 302, 211, 138, 85, 51, 30, 16, 8, 3]
    assert list(grid.model_times) == [*known, 1]
    assert grid.end == 0 and grid.model_times.dtype == np.int32


@pytest.mark.parametrize("spacing", SOLVER_SPACINGS)
def test_solver_grids_are_even_in_what_their_names_say(spacing):
    nodes = solver_grid(LINEAR, 9, spacing, model_time="continuous").nodes
    assert len(nodes) == 10 and nodes[0] == 999 and nodes[-1] == 0
    of = {
        "logsnr": lambda u: np.log(1 / (1 / LINEAR.abar_between(u) - 1)),
        "uniform": lambda u: u,
        "quadratic": lambda u: np.sqrt((u + 1) / 1000),
    }
    steps = np.diff(of[spacing](nodes))
    np.testing.assert_allclose(steps, steps.mean(), rtol=1e-9)


@pytest.mark.parametrize("spacing", SOLVER_SPACINGS)
def test_one_call_may_be_kept_for_the_step_to_the_clean_signal(spacing):
    short, whole = solver_grid(LINEAR, 6, spacing), solver_grid(LINEAR, 7, spacing, to_clean=True)
    assert whole.end is None and whole.times[-1] == 0 and len(whole) == 7
    np.testing.assert_array_equal(whole.nodes, short.nodes)
    only = solver_grid(LINEAR, 1, spacing, to_clean=True)
    assert len(only) == 1


def test_impossible_grids_of_levels_are_refused():
    with pytest.raises(ValueError, match="unknown solver spacing 'karras'"):
        solver_grid(LINEAR, 10, "karras")
    with pytest.raises(ValueError, match="unknown model time 'rounded'"):
        solver_grid(LINEAR, 10, model_time="rounded")
    with pytest.raises(ValueError, match="num_evaluations must be at least 1, got 0"):
        solver_grid(LINEAR, 0)
    falling = np.array([3.0, 1.0])
    for times, end in ((falling[::-1], None), (falling, 1.0), (falling, -1.0), (falling[:0], None)):
        with pytest.raises(ValueError, match="must fall strictly"):
            TimeGrid(times=times, model_times=times, end=end)
    with pytest.raises(ValueError, match="one model time per level"):
        TimeGrid(times=falling, model_times=falling[:1])
