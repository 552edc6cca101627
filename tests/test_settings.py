# SPDX-License-Identifier: Apache-2.0
"""Settings from plain mappings: every key and every type is checked, and defaults are told."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from mmdisco_jax.sections import Sampling, Training
from mmdisco_jax.settings import defaults_of, read_settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    low: int = 0
    high: float = 1.0

    def __post_init__(self):
        if self.high < self.low:
            raise ValueError(f"high is {self.high}, but must be at least low, {self.low}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    num_steps: int = 3
    rate: float = 0.5
    is_on: bool = False
    limit: float | None = 2.0
    where: str | int = "latest"
    sizes: tuple[int, ...] = ()
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    rest: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"a": 1})
    inner: Inner = Inner()
    other: Any = dataclasses.field(default_factory=object)


def test_absent_keys_keep_their_defaults_and_all_levels_are_read():
    assert read_settings(Outer, {"name": "x", "other": 1}, "config") == Outer(name="x", other=1)
    values = {
        "name": "x",
        "num_steps": 5,
        "limit": None,
        "where": 250,
        "sizes": [1, 2],
        "names": {"a": "b"},
        "rest": {"c": (1, None)},
        "inner": {"high": 7.5},
        "other": 1,
    }
    read = read_settings(Outer, values, "config")
    assert read.sizes == (1, 2) and read.limit is None and read.where == 250
    assert read.inner == Inner(high=7.5) and read.names == {"a": "b"}
    assert read.rest == {"c": (1, None)}
    assert read_settings(Outer, values | {"inner": Inner(low=1)}, "config").inner.low == 1


def test_an_unknown_key_is_named_with_the_nearest_known_one():
    with pytest.raises(ValueError, match=r"config\.train\.num_step: did you mean 'num_steps'\?"):
        read_settings(Training, {"num_step": 3}, "config.train")
    with pytest.raises(ValueError, match=r"config\.train\.time\.focsu: did you mean 'focus'\?"):
        read_settings(Training, {"time": {"focsu": 0.5}}, "config.train")
    with pytest.raises(ValueError, match=r"config\.x\.inner\.zzz: choose from low, high\."):
        read_settings(Outer, {"name": "x", "inner": {"zzz": 1}}, "config.x")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_steps": 3.0}, r"config\.num_steps is 3\.0, but must be of type int"),
        ({"num_steps": True}, r"config\.num_steps is True, but must be of type int"),
        ({"num_steps": None}, r"config\.num_steps is None, but must be of type int"),
        ({"num_steps": "many"}, r"config\.num_steps is 'many', but must be of type int"),
        ({"rate": "1"}, r"config\.rate is '1', but must be of type float"),
        ({"rate": False}, r"config\.rate is False, but must be of type float"),
        ({"is_on": 1}, r"config\.is_on is 1, but must be of type bool"),
        ({"name": 3}, r"config\.name is 3, but must be of type str"),
        ({"limit": "none"}, r"config\.limit is 'none', but must be of type float or None"),
        ({"where": None}, r"config\.where is None, but must be of type str or int"),
        ({"sizes": 3}, r"config\.sizes is 3, but must be of type a tuple"),
        ({"sizes": "12"}, r"config\.sizes is '12', but must be of type a tuple"),
        ({"sizes": (1, "2")}, r"config\.sizes is '2', but must be of type int"),
        ({"names": "ab"}, r"config\.names is 'ab', but must be of type a section"),
        ({"names": {"a": 1}}, r"config\.names\.a is 1, but must be of type str"),
        ({"inner": 3}, r"config\.inner is 3, but must be of type a section"),
        ({"inner": {"low": "0"}}, r"config\.inner\.low is '0', but must be of type int"),
        ({"inner": {"low": 3}}, r"high is 1\.0, but must be at least low, 3"),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_dotted_name(values, message):
    with pytest.raises(ValueError, match=message):
        read_settings(Outer, {"name": "x", **values}, "config")


def test_a_whole_number_stands_for_a_real_one_and_stays_whole():
    """So that records of earlier runs, which have 8 frames a second, stay as they are."""
    read = read_settings(Outer, {"name": "x", "rate": 8}, "config")
    assert read.rate == 8 and isinstance(read.rate, int)


def test_defaults_are_plain_and_nested():
    assert defaults_of(Outer) == {  # name has none, and what `other` holds is no plain value
        "num_steps": 3,
        "rate": 0.5,
        "is_on": False,
        "limit": 2.0,
        "where": "latest",
        "sizes": (),
        "names": {},
        "rest": {"a": 1},
        "inner": {"low": 0, "high": 1.0},
    }


@pytest.mark.parametrize("kind", [Training, Sampling])
def test_the_defaults_of_a_section_are_what_it_reads(kind):
    assert read_settings(kind, defaults_of(kind), "config") == kind()
