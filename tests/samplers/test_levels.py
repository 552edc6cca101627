# SPDX-License-Identifier: Apache-2.0
"""Paths of noise levels: published values and what each spacing and notation promises."""

import numpy as np
import pytest

from mmdisco_jax.process.schedules import cosine, linear
from mmdisco_jax.samplers.levels import (
    SOLVER_SPACINGS,
    SPACINGS,
    Levels,
    levels,
    respaced_levels,
    solver_levels,
)

LINEAR = linear()


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("num_steps", [1, 2, 7, 50, 1000])
def test_levels_fall_strictly_within_the_schedule(spacing, num_steps):
    grid = levels(LINEAR, num_steps, spacing).times
    assert grid.dtype == np.int32 and 1 <= len(grid) <= num_steps
    assert grid.min() >= 0 and grid.max() <= 999
    assert np.all(np.diff(grid) < 0)
    if spacing != "logsnr":
        assert len(grid) == num_steps


def test_published_values():
    # The official loop's 50 levels, and those of Lin et al. 2024, table 2, for 10 steps.
    official = levels(LINEAR, 50, "leading", offset=1).times
    assert list(official[:3]) == [981, 961, 941] and official[-1] == 1
    assert list(levels(LINEAR, 10, "trailing").times) == list(range(999, 0, -100))
    assert list(levels(LINEAR, 10, "linspace").times) == [999 - 111 * i for i in range(10)]


def test_logsnr_is_even_in_log_snr():
    grid = levels(LINEAR, 12, "logsnr").times
    abar = LINEAR.abar[grid]
    steps = np.diff(np.log(abar / (1 - abar)))
    assert grid[0] == 999 and grid[-1] == 0
    # Rounding to integers moves a level by half of its neighbours' distance, large only near t = 0.
    np.testing.assert_allclose(steps[:8], steps.mean(), rtol=0.05)


@pytest.mark.parametrize("num_steps", [0, 1001])
def test_an_impossible_number_of_steps_is_refused(num_steps):
    with pytest.raises(ValueError, match=r"num_steps must be in 1\.\.1000"):
        levels(LINEAR, num_steps)


def test_an_unknown_spacing_is_named():
    with pytest.raises(ValueError, match="unknown spacing 'karras': choose one of leading"):
        levels(LINEAR, 10, "karras")


def test_the_official_solver_levels():
    """Times that the official wrapper tells the model in 20 calls, as measured."""
    grid = solver_levels(LINEAR, 20)
    known = [999, 949, 898, 843, 784, 721, 652, 576, 492, 399, 302, 211, 138, 85, 51, 30, 16, 8, 3]
    assert list(grid.model_times) == [*known, 1]
    assert grid.end == 0 and grid.model_times.dtype == np.int32


@pytest.mark.parametrize("spacing", SOLVER_SPACINGS)
def test_solver_grids_are_even_in_what_their_names_say(spacing):
    nodes = solver_levels(LINEAR, 9, spacing, model_time="continuous").nodes
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
    short, whole = (
        solver_levels(LINEAR, 6, spacing),
        solver_levels(LINEAR, 7, spacing, to_clean=True),
    )
    assert whole.end is None and whole.times[-1] == 0 and len(whole) == 7
    np.testing.assert_array_equal(whole.nodes, short.nodes)
    only = solver_levels(LINEAR, 1, spacing, to_clean=True)
    assert len(only) == 1


def test_impossible_grids_of_levels_are_refused():
    with pytest.raises(ValueError, match="unknown solver spacing 'karras'"):
        solver_levels(LINEAR, 10, "karras")
    with pytest.raises(ValueError, match="unknown model time 'rounded'"):
        solver_levels(LINEAR, 10, model_time="rounded")
    with pytest.raises(ValueError, match="num_evaluations must be at least 1, got 0"):
        solver_levels(LINEAR, 0)
    falling = np.array([3.0, 1.0])
    for times, end in ((falling[::-1], None), (falling, 1.0), (falling, -1.0), (falling[:0], None)):
        with pytest.raises(ValueError, match="must fall strictly"):
            Levels(times=times, model_times=times, end=end)
    with pytest.raises(ValueError, match="one model time per level"):
        Levels(times=falling, model_times=falling[:1])


def test_levels_are_common_to_schedules_of_one_length():
    """Level 100 of 1000 is not level 100 of 200."""
    both = {"a": LINEAR, "b": cosine(1000)}
    assert np.array_equal(levels(both, 7).times, levels(LINEAR, 7).times)
    assert np.array_equal(solver_levels(both, 7).times, solver_levels(LINEAR, 7).times)
    for make in (levels, solver_levels):
        with pytest.raises(ValueError, match=r"have \{'a': 1000, 'b': 200\} noise levels"):
            make({"a": LINEAR, "b": cosine(200)}, 7)


def test_whole_levels_are_the_table_s_own_values():
    path = levels(LINEAR, 7)
    now, after = path.abar(LINEAR)
    assert path.are_whole and path.model_times.dtype == np.int32
    assert np.array_equal(now, LINEAR.abar[path.times])
    assert np.array_equal(after, [*now[1:], 1.0])
    ended = Levels(times=np.array([600, 400]), end=250.5)
    assert np.array_equal(ended.abar(LINEAR)[0], LINEAR.abar[[600, 400]])
    assert LINEAR.abar[251] < ended.abar(LINEAR)[1][-1] < LINEAR.abar[250]
    with pytest.raises(ValueError, match=r"starts at noise level 600, but the schedule ends at 99"):
        ended.abar(cosine(100))


def _rising(num_timesteps: int, spec: str) -> np.ndarray:
    return respaced_levels(num_timesteps, spec).times[::-1]


def test_ddim_has_a_whole_stride_from_zero():
    np.testing.assert_array_equal(_rising(1000, "ddim25"), np.arange(0, 1000, 40))
    # 334 levels of stride 3 end at 999; 1000 // 334 would say stride 2.
    np.testing.assert_array_equal(_rising(1000, "ddim334"), np.arange(0, 1000, 3))


@pytest.mark.parametrize("spec", ["1", "20", "999", "10,15,20", "3,1,7", "1000", "", "ddim200"])
def test_levels_rise_strictly_within_the_schedule(spec: str):
    path = _rising(1000, spec)
    assert path.dtype == np.int32
    assert np.all(np.diff(path) > 0)
    assert path[0] == 0 and path[-1] <= 999
    if "ddim" not in spec:
        assert len(path) == sum(map(int, spec.split(","))) if spec else 1000


def test_each_section_is_even_from_end_to_end():
    path = _rising(300, "10,15,20")  # the example of the official documentation
    for start, count in ((0, 10), (100, 15), (200, 20)):
        own = path[(path >= start) & (path < start + 100)]
        assert (own[0], own[-1], len(own)) == (start, start + 99, count)
        assert set(np.diff(own)) <= {99 // (count - 1), 99 // (count - 1) + 1}
    assert list(_rising(8, "2,2,2")) == [0, 2, 3, 5, 6, 7]  # sections of 3, 3, 2


def test_halves_round_as_in_the_official_code():
    # Level 12 of 25 lies at 12 * 49 / 24 = 24.5, which as a sum is slightly more: measured there.
    assert _rising(50, "25")[12] == 25


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ddim999", "no whole stride visits 999 of 1000 levels"),
        ("1001", "a section of 1000 levels cannot have 1001 steps"),
        ("400,10,10", "a section of 334 levels cannot have 400 steps"),
        ("ddim", "respacing 'ddim' is not understood"),
        ("ddim10,20", "is not understood"),
        ("10,,20", "is not understood"),
        ("0", "is not understood"),
        ("-5", "is not understood"),
        ("fast27", "is not understood"),
    ],
)
def test_wrong_notation_is_told(spec: str, message: str):
    with pytest.raises(ValueError, match=message):
        respaced_levels(1000, spec)
