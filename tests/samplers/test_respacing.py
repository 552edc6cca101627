# SPDX-License-Identifier: Apache-2.0
"""Respaced levels: the official code's documented cases, and what each notation promises."""

import numpy as np
import pytest

from mmdisco_jax.samplers.respacing import respaced_timesteps


def test_ddim_has_a_whole_stride_from_zero():
    np.testing.assert_array_equal(respaced_timesteps(1000, "ddim25"), np.arange(0, 1000, 40))
    # 334 levels of stride 3 end at 999; 1000 // 334 would say stride 2.
    np.testing.assert_array_equal(respaced_timesteps(1000, "ddim334"), np.arange(0, 1000, 3))


@pytest.mark.parametrize("spec", ["1", "20", "999", "10,15,20", "3,1,7", "1000", "", "ddim200"])
def test_levels_rise_strictly_within_the_schedule(spec: str):
    levels = respaced_timesteps(1000, spec)
    assert levels.dtype == np.int32
    assert np.all(np.diff(levels) > 0)
    assert levels[0] == 0 and levels[-1] <= 999
    if "ddim" not in spec:
        assert len(levels) == sum(map(int, spec.split(","))) if spec else 1000


def test_each_section_is_even_from_end_to_end():
    levels = respaced_timesteps(300, "10,15,20")  # the example of the official documentation
    for start, count in ((0, 10), (100, 15), (200, 20)):
        own = levels[(levels >= start) & (levels < start + 100)]
        assert (own[0], own[-1], len(own)) == (start, start + 99, count)
        assert set(np.diff(own)) <= {99 // (count - 1), 99 // (count - 1) + 1}
    assert list(respaced_timesteps(8, "2,2,2")) == [0, 2, 3, 5, 6, 7]  # sections of 3, 3, 2


def test_halves_round_as_in_the_official_code():
    # Level 12 of 25 lies at 12 * 49 / 24 = 24.5, which as a sum is slightly more: measured there.
    assert respaced_timesteps(50, "25")[12] == 25


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
        respaced_timesteps(1000, spec)
