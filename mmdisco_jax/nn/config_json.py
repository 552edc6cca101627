# SPDX-License-Identifier: Apache-2.0
"""Strict reader of a diffusers `config.json`.

A port must not silently ignore an option that changes the network. Each port therefore lists the
keys that it reads, those it supports with certain values only, and those that change no number;
any other key is an error.
"""

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
    """Read the keys of `defaults` from `config`, and refuse options that the port does not have.

    Args:
      config: a `config.json` as diffusers writes it; older versions leave keys out.
      model: name of the network, for errors.
      defaults: the keys that the port reads, with the values that diffusers takes for absent ones.
      fixed: keys that the port supports with certain values only, diffusers' default first.
      ignored: keys that do not change a prediction. Keys with a leading "_" are ignored, too.

    Returns:
      A value for each key of `defaults`.

    Raises:
      ValueError: a fixed key has an unsupported value, or a key is in none of the three tables.
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
    """Expand a config's value to one entry per level: a number is repeated, a list is kept.

    Raises:
      ValueError: the list has another length, or an entry that is neither an integer nor None.
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
    """Translate a config's block types to one flag per level: does this level attend?

    Args:
      key: name of the list in the config, for errors.
      types: the list.
      plain, attending: names of the block without and with attention.

    Raises:
      ValueError: a type is neither of the two.
    """
    if other := [name for name in types if name not in (plain, attending)]:
        raise ValueError(
            f"{key} has {other}, and this port has {plain} and {attending} only: use a checkpoint "
            "with these, or add the block to the port."
        )
    return tuple(name == attending for name in types)
