# SPDX-License-Identifier: Apache-2.0
"""Reading a diffusers `config.json`: what a port reads of it, fixes and ignores."""

from collections.abc import Collection, Mapping
from typing import Any


def read_config(
    config: Mapping[str, Any],
    *,
    model: str,
    defaults: Mapping[str, Any],
    fixed: Mapping[str, tuple],
    ignored: Collection[str],
) -> dict[str, Any]:
    """The values of the keys of `defaults`, those of `config` where it has them.

    Args:
      config: a `config.json`, as diffusers writes it; older versions leave keys out.
      model: name of the network, for errors.
      defaults: the keys that the port reads, and diffusers' own defaults of them.
      fixed: keys of which the port has certain values only; the first is diffusers' default.
      ignored: keys that change no number of a prediction. Keys with a leading "_" are, too.

    Raises:
      ValueError: a fixed key has another value, or a key is in none of the three.
    """
    for key, value in config.items():
        if key in fixed and not any(value == allowed for allowed in fixed[key]):
            allowed = " or ".join(map(repr, fixed[key]))
            raise ValueError(
                f"{model}: config has {key}={value!r}, and this port has {key}={allowed} only: use "
                "a checkpoint of that kind, or add the option to the port."
            )
        if not (key in defaults or key in fixed or key in ignored or key.startswith("_")):
            raise ValueError(
                f"{model}: config has the unknown key {key}={value!r}; this port knows "
                f"{sorted([*defaults, *fixed, *ignored])}: is it another network's config? If the "
                "key changes nothing here, remove it."
            )
    return {key: config.get(key, default) for key, default in defaults.items()}


def per_level(key: str, value: Any, num_levels: int) -> tuple:
    """A config's value for each level: of a number itself, of a list its entries.

    Raises:
      ValueError: a list of another length, or with entries that are no integers (nor None).
    """
    values = (value,) * num_levels if isinstance(value, int) else value
    if not isinstance(values, (list, tuple)) or len(values) != num_levels:
        raise ValueError(
            f"{key} is {value!r}; it must be a whole number or a list of {num_levels}, one for "
            "each level."
        )
    if not all(entry is None or isinstance(entry, int) for entry in values):
        raise ValueError(
            f"{key} is {value!r}; its entries must be whole numbers: levels whose layers differ "
            "among themselves are not supported."
        )
    return tuple(values)


def attends(key: str, types: Any, plain: str, attending: str) -> tuple[bool, ...]:
    """Whether each block type of a config is the `attending` one.

    Raises:
      ValueError: a type is neither.
    """
    if other := [name for name in types if name not in (plain, attending)]:
        raise ValueError(
            f"{key} has {other}, and this port has {plain} and {attending} only: use a checkpoint "
            "with these, or add the block to the port."
        )
    return tuple(name == attending for name in types)
